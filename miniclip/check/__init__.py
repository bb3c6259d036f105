"""Would anyone notice if a backward pass were wrong? Wrong variants of miniclip's own modules."""

from miniclip.check.planting import Bug, planted, unchanged

__all__ = ["Bug", "planted", "unchanged"]
