"""Allocations, threads and writes that fail on purpose, one after another, and what must come of it."""
