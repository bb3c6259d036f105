"""From SVG to pixels, by resvg; the extra `data` installs it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from miniclip.emoji.packages import PackageError
from miniclip.notes import in_one_line

SIDE = 128  # pixels of the longer side of a picture that is stored
LEAST_ALPHA = 8  # of 255; what is more transparent is not seen


def check_renderer() -> str:
    """The version of resvg. ImportError with the way out where it is not installed."""
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError(
            "resvg_py: not installed, expected it to draw SVG pictures: pip install resvg-py==0.5.0"
        ) from error
    return str(resvg_py.__version__)


def draw(svg: str, width: int, height: int, name: str) -> bytes:
    """A PNG, RGBA, its longer side SIDE pixels. width, height: of the SVG, in its own units.

    PackageError naming the icon for what resvg cannot draw, and for a picture of nothing.
    """
    import resvg_py

    side: dict[str, Any] = {"width": SIDE} if width >= height else {"height": SIDE}
    try:
        data = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, **side))
    except ValueError as error:
        raise PackageError(f"{name}: cannot be drawn ({in_one_line(error)})") from error
    if is_empty(data):
        raise PackageError(f"{name}: draws nothing that can be seen")
    return data


def is_empty(png: bytes) -> bool:
    """Whether a picture has no pixel that is seen."""
    from PIL import Image

    alpha = np.asarray(Image.open(io.BytesIO(png)).getchannel("A"))
    return bool(alpha.max() <= LEAST_ALPHA)
