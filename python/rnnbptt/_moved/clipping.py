"""Where pickles of version 0.1 look for clip_by_global_norm."""

from rnnbptt.gradients.clipping import clip_by_global_norm as clip_by_global_norm
