"""Where older pickles look for Chunked, Randomized and Sliding."""

from rnnbptt.engine.truncation import Chunked as Chunked
from rnnbptt.engine.truncation import Randomized as Randomized
from rnnbptt.engine.truncation import Sliding as Sliding
