"""Where pickles of version 0.1 look for Dataset."""

from rnnbptt.engine.dataset import Dataset as Dataset
