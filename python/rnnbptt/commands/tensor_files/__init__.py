"""Tensors in files from strangers: what a file declares, checked, and of that only what is asked for, read.

Nothing is unpickled, and no more memory is taken than a file declares for the tensors that are read: every
size is checked against the file, and against a limit, before anything is allocated.
"""
