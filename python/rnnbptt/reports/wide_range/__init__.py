"""Recurrences and sums of numbers far beyond the range of float64."""
