"""The commands of ``rnnbptt``, a room each."""
