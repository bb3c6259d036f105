"""Weights that come with miniclip, and the table of known ones (known.json; see README.md)."""
