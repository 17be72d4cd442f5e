"""What the eigenvalues and powers of ``W_hh`` do to gradients, on any data."""
