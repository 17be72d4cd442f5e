"""Speed of rnnbptt beside its peers: `python -m bench` and `pytest bench`."""
