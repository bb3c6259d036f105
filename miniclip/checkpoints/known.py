"""The table of known checkpoints: names, where they lie, and what their tensors do not tell.

The table is weights/known.json, installed as part of the package `miniclip.weights`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any

from miniclip.checkpoints.shipped import NAMES, weights_folder


@dataclass(frozen=True)
class Known:
    """One known checkpoint. None: not known for certain (see weights/README.md).

    name: what `load` takes; aliases: other spellings. model: which of OpenAI's nine it is.
    repository: on the hub, "org/name". file: the weights in it; config, tokenizer: files beside it.
    layout: "openai" or "hf". activation: "quick_gelu" or "gelu".
    preprocessing: size, mean, std, resize_mode, interpolation, as `Transform` takes them.
    size_mb: of the file, in millions of bytes. sha256: of the file. licence: of the weights.
    note: what to know before using it. source: where the entry comes from.
    """

    name: str
    aliases: tuple[str, ...]
    model: str | None
    repository: str
    file: str | None
    config: str | None
    tokenizer: tuple[str, ...] | None
    layout: str | None
    activation: str | None
    preprocessing: dict[str, Any]
    size_mb: int | None
    sha256: str | None
    licence: str | None
    note: str | None
    source: str

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Known:
        """One object of the table: lists become tuples."""
        fields = {name: frozen(value) for name, value in entry.items()}
        preprocessing = {name: frozen(value) for name, value in entry["preprocessing"].items()}
        return cls(**fields | {"preprocessing": preprocessing})


def frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def known() -> Mapping[str, Known]:
    """name -> entry, in the order of the table; read when first asked for."""
    entries = (Known.from_json(entry) for entry in read_table())
    return MappingProxyType({entry.name: entry for entry in entries})


def read_table() -> list[dict[str, Any]]:
    """The entries as known.json has them."""
    table = json.loads((weights_folder() / "known.json").read_text(encoding="utf-8"))
    checkpoints: list[dict[str, Any]] = table["checkpoints"]
    return checkpoints


def available_models() -> list[str]:
    """The names of all checkpoints: the shipped ones, OpenAI's nine, the others."""
    return [*NAMES, *known()]


def find_known(name: str) -> Known | None:
    """The checkpoint of this name, alias or repository, None if there is none.

    Case makes no difference, nor which of / - _ @ : and space separates the parts.
    """
    entry = names_by_spelling().get(plain_spelling(name))
    return None if entry is None else known()[entry]


def nearest_names(name: str, count: int = 3) -> list[str]:
    """Known names that look like this one, nearest first: for error messages."""
    spellings = names_by_spelling() | {plain_spelling(shipped): shipped for shipped in NAMES}
    close = get_close_matches(plain_spelling(name), spellings, n=2 * count)
    return list(dict.fromkeys(spellings[spelling] for spelling in close))[:count]


def is_mistyped(name: str) -> bool:
    """Whether this begins like a known model ("ViT-B/33"), so that it is no hub repository."""
    families = {entry.name.split("/")[0] for entry in known().values()}
    families -= {entry.repository.split("/")[0] for entry in known().values()}
    return name.split("/")[0].lower() in {family.lower() for family in families}


@cache
def names_by_spelling() -> dict[str, str]:
    """Plain spelling -> name. A repository with several entries means the first."""
    plain: dict[str, str] = {}
    for entry in known().values():
        for spelling in (entry.name, *entry.aliases, entry.repository):
            plain.setdefault(plain_spelling(spelling), entry.name)
    return plain


def plain_spelling(name: str) -> str:
    return re.sub(r"[/\-_@:\s]+", "-", name.strip()).lower()


def markdown_table() -> str:
    """The table for docs/weights.md."""
    head = ["name", "repository", "MB", "activation", "pixels", "preprocessing", "licence"]
    rows = [head, ["---"] * len(head), *(markdown_row(entry) for entry in known().values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def markdown_row(entry: Known) -> list[str]:
    said = entry.preprocessing
    odd = [f"mean {said['mean'][0]}, std {said['std'][0]}"] if said["mean"] == (0.5,) * 3 else []
    odd += [said["resize_mode"]] if said["resize_mode"] == "squash" else []
    own = "its own" if said["mean"] is None else ", ".join(odd) or "CLIP's"
    cells = [entry.size_mb, entry.activation, said["size"]]
    middle = ["" if cell is None else str(cell) for cell in cells]
    return [f"`{entry.name}`", f"`{entry.repository}`", *middle, own, entry.licence or ""]
