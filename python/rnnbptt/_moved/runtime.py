"""Where older pickles look for build_info, get_num_threads and set_num_threads."""

from rnnbptt.engine.runtime import build_info as build_info
from rnnbptt.engine.runtime import get_num_threads as get_num_threads
from rnnbptt.engine.runtime import set_num_threads as set_num_threads
