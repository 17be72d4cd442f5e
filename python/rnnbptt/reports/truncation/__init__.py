"""What truncated backpropagation through time loses on a model and its data."""

from .analysis import truncation_report
from .report import TruncationReport

__all__ = ["TruncationReport", "truncation_report"]
