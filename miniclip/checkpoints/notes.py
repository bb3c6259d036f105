"""What our writer notes in a safetensors header: the configuration and the preprocessing."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from miniclip.checkpoints.configs import Source
from miniclip.checkpoints.errors import CheckpointError
from miniclip.checkpoints.json_files import as_object, parse_json
from miniclip.models import CLIPConfig, TextConfig, VisionConfig

CONFIG = "miniclip_config"  # keys of the header's notes
PREPROCESSING = "miniclip_preprocessing"


def noted_config(path: Path, metadata: dict[str, str]) -> list[Source]:
    """The configuration that our writer left in the file's header, if it did."""
    if CONFIG not in metadata:
        return []
    where = f"{path}: its note {CONFIG}"
    note = parse_json(where, metadata[CONFIG].encode("utf-8", "replace"))
    claims = {"embed_dim": note["embed_dim"]} if "embed_dim" in note else {}
    for tower, kind in (("vision", VisionConfig), ("text", TextConfig)):
        known = {field.name for field in fields(kind)}
        for name, value in as_object(where, tower, note.get(tower)).items():
            if name not in known:
                raise CheckpointError(f"{where}: {tower} has no field {name!r}")
            if value is not None or name == "end_id":
                claims[f"{tower}.{name}"] = tuple(value) if isinstance(value, list) else value
    return [Source(f"its note {CONFIG}", claims)]


def config_note(config: CLIPConfig) -> str:
    """The note for a configuration."""
    towers = {
        name: None if tower is None else vars(tower)
        for name, tower in (("vision", config.vision), ("text", config.text))
    }
    return json.dumps({"embed_dim": config.embed_dim, **towers})


def noted_preprocessing(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """The preprocessing that our writer left in the file's header; empty if it did not."""
    if PREPROCESSING not in metadata:
        return {}
    return parse_json(f"{path}: its note {PREPROCESSING}", metadata[PREPROCESSING].encode())


def preprocessing_note(preprocessing: dict[str, Any]) -> str:
    """The note for a preprocessing."""
    return json.dumps(preprocessing)
