"""What CLIP is used for: zero-shot classification."""

from miniclip.tasks.zero_shot import ZeroShotResult, zero_shot

__all__ = ["ZeroShotResult", "zero_shot"]
