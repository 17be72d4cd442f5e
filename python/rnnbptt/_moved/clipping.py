"""Where older pickles look for clip_by_global_norm."""

from rnnbptt.gradients.clipping import clip_by_global_norm as clip_by_global_norm
