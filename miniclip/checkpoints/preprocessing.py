"""How pictures were prepared for a checkpoint, where its folder or its notes say so.

A configuration is read whole: each field becomes a field of `Transform` that gives the same pixels,
or is refused by its name. Without any, nothing is said here, and the pipeline decides.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from miniclip.checkpoints.errors import CheckpointError, kind_of
from miniclip.checkpoints.json_files import as_object, square
from miniclip.checkpoints.notes import PREPROCESSING, noted_preprocessing
from miniclip.checkpoints.reader import Checkpoint
from miniclip.checkpoints.transformers_processor import is_number, processor_fields
from miniclip.inputs.preprocess import CHOICES, Transform

FIELDS = tuple(field.name for field in fields(Transform))
# Of open_clip's `preprocess_cfg`, and ours for them. `mode` may only be RGB, as in open_clip.
OPEN_CLIP_FIELDS = {"fill_color": "fill"} | {
    name: name for name in ("size", "mean", "std", "interpolation", "resize_mode")
}


def read_preprocessing(checkpoint: Checkpoint, layout: str) -> dict[str, Any]:
    """The fields of `Transform` that the checkpoint's configuration, or else its notes, give.

    Raises CheckpointError that names the file and the field.
    """
    if layout == "hf":  # beside its own weights, its own file first
        sources = [said_by_transformers, said_in_notes]
    else:
        sources = [said_by_open_clip, said_in_notes, said_by_transformers]
    for source in sources:
        found = source(checkpoint)
        if found is not None:
            where, said = found
            return {field: checked(where, field, said[field]) for field in FIELDS if field in said}
    return {}


Said = tuple[str, dict[str, Any]] | None  # who says it, for errors, and fields of Transform


def said_by_transformers(checkpoint: Checkpoint) -> Said:
    """Newer folders keep the image processor in the whole processor's file, which then counts."""
    whole = checkpoint.beside("processor_config.json") or {}
    if whole.get("image_processor") is not None:
        where = f"{checkpoint.folder / 'processor_config.json'}: image_processor"
        return where, processor_fields(where, as_object(where, "it", whole["image_processor"]))
    where = str(checkpoint.folder / "preprocessor_config.json")
    config = checkpoint.beside("preprocessor_config.json")
    return None if config is None else (where, processor_fields(where, config))


def said_in_notes(checkpoint: Checkpoint) -> Said:
    noted = noted_preprocessing(checkpoint.path, checkpoint.metadata)
    where = f"{checkpoint.path}: note {PREPROCESSING}"
    if unknown := sorted(set(noted) - set(FIELDS)):
        raise CheckpointError(f"{where}: {unknown[0]} is not known to this version of miniclip")
    return (where, noted) if noted else None


def said_by_open_clip(checkpoint: Checkpoint) -> Said:
    for name in ("open_clip_config.json", "config.json"):
        config = checkpoint.beside(name) or {}
        if config.get("preprocess_cfg") is None:
            continue
        where = str(checkpoint.folder / name)
        said = open_clip_fields(where, as_object(where, "preprocess_cfg", config["preprocess_cfg"]))
        model = as_object(where, "model_cfg", config.get("model_cfg"))
        vision = as_object(where, "vision_cfg", model.get("vision_cfg"))
        if "size" not in said and vision.get("image_size") is not None:
            said["size"] = square(where, "vision_cfg.image_size", vision["image_size"])
        return f"{where}: preprocess_cfg", said
    return None


def open_clip_fields(where: str, config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Transform` for a `preprocess_cfg`; null says nothing, as in open_clip."""
    said: dict[str, Any] = {}
    for name, value in config.items():
        if value is None or (name == "mode" and value == "RGB"):
            continue
        if name not in OPEN_CLIP_FIELDS:
            expected = ", expected RGB" if name == "mode" else ": not a field of open_clip's"
            raise CheckpointError(f"{where}: preprocess_cfg.{name} is {kind_of(value)}{expected}")
        said[OPEN_CLIP_FIELDS[name]] = value
    for name in ("mean", "std"):
        if is_number(said.get(name)) and said[name]:  # one number for the three channels
            said[name] = [said[name]] * 3
    if "size" in said:
        said["size"] = square(where, "preprocess_cfg.size", said["size"])
    if said.get("interpolation") == "random":  # of training; afterwards open_clip is bicubic
        said["interpolation"] = "bicubic"
    return said


def checked(where: str, field: str, value: Any) -> Any:
    """The value, as `Transform` takes it. JSON's types are held to more strictly than Python's."""
    if field in ("mean", "std"):
        three = isinstance(value, list | tuple) and len(value) == 3
        good = three and all(is_number(n) and abs(n) < 1e6 for n in value)
        if good and (field == "mean" or min(value) > 0):
            return tuple(float(n) for n in value)
        expected = "three numbers" if field == "mean" else "three positive numbers"
    elif field in CHOICES:
        if isinstance(value, str) and value in CHOICES[field]:
            return value
        expected = f"one of {', '.join(CHOICES[field])}"
    elif field == "apply_exif":
        if isinstance(value, bool):
            return value
        expected = "true or false"
    elif field == "fill":
        if type(value) is int and 0 <= value <= 255:
            return value
        expected = "0 to 255"
    else:
        if type(value) is int and 0 < value < 2**16:
            return value
        expected = "pixels along a side"
    raise CheckpointError(f"{where}: {field} is {kind_of(value)}, expected {expected}")
