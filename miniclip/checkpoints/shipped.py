"""The trained models that come with miniclip: small, offline, made by its own training code.

Each is a folder of weights/, installed as part of the package `miniclip.weights`: weights,
vocabulary and a model card.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

# name -> sha256 of its model.safetensors
HASHES = {
    "mini-vit": "817157bbdd7afb7c0cd04894d5471fc43a706a806a097b22a365fdcca8986d01",
    "mini-rn": "9b9828b80b364912d00a12a11f15b7bab6dcb2ac234c74eb86401dbdc2063edf",
}
NAMES = tuple(HASHES)
DEFAULT = "mini-vit"


def weights_folder() -> Path:
    """Where the installed weights lie; in a checkout that is not installed, its weights/."""
    try:
        return Path(str(resources.files("miniclip.weights")))
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "weights"


def shipped_path(name: str) -> Path | None:
    """The folder of a shipped model; None if no model of this name is shipped."""
    return weights_folder() / name if name in NAMES else None
