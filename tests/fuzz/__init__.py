"""Calls and files that nobody would write, and what must come of them."""
