"""miniclip: CLIP written from scratch, every layer forward and backward, to be read and run."""

__version__ = "0.1.0"
