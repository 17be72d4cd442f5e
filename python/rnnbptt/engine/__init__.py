"""Data in the form the extension reads; and what is computed of them without a loss."""
