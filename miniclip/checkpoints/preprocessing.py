"""How pictures were prepared for a checkpoint, where its folder or its notes say so.

Nothing is filled in here: what no file says is left out, and the pipeline decides.
"""

from __future__ import annotations

from typing import Any

from miniclip.checkpoints.errors import CheckpointError, kind_of
from miniclip.checkpoints.json_files import square
from miniclip.checkpoints.notes import PREPROCESSING, noted_preprocessing
from miniclip.checkpoints.reader import Checkpoint

RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, which transformers writes
RESIZE_MODES = ("shortest", "squash", "longest")
FIELDS = ("mean", "std", "size", "resize_mode", "interpolation")


def read_preprocessing(checkpoint: Checkpoint, layout: str) -> dict[str, Any]:
    """mean, std (three floats), size (pixels), resize_mode ("shortest", "squash", "longest"),
    interpolation ("bicubic", "bilinear"): those that the checkpoint says.

    Raises CheckpointError that names the file and the field.
    """
    said: dict[str, Any] = {}
    name = "the header"
    if layout == "hf":
        name, said = said_by_transformers(checkpoint)
    else:
        beside = checkpoint.beside("open_clip_config.json") or {}
        if isinstance(beside.get("preprocess_cfg"), dict):
            name, said = "open_clip_config.json", said_by_open_clip(checkpoint, beside)
    if not said and (noted := noted_preprocessing(checkpoint.path, checkpoint.metadata)):
        name, said = f"note {PREPROCESSING}", noted
    where = f"{checkpoint.folder}: {name}"
    return {field: checked(where, field, said[field]) for field in FIELDS if field in said}


def to_transformers(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """A preprocessor_config.json for transformers' CLIPImageProcessor.

    Raises ValueError for resize_mode "longest", which that processor does not have.
    """
    mode = preprocessing.get("resize_mode", "shortest")
    if mode == "longest":
        raise ValueError("preprocessing: transformers has no resize_mode 'longest'")
    config: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor", "do_resize": True}
    config |= {"do_center_crop": True, "do_rescale": True, "do_normalize": True}
    config |= {"do_convert_rgb": True, "rescale_factor": 1 / 255}
    if "size" in preprocessing:
        side = preprocessing["size"]
        both = {"height": side, "width": side}
        config["size"] = {"shortest_edge": side} if mode == "shortest" else both
        config["crop_size"] = both
    numbers = {name: number for number, name in RESAMPLE.items()}
    config["resample"] = numbers[preprocessing.get("interpolation", "bicubic")]
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
        if ours in preprocessing:
            config[theirs] = list(preprocessing[ours])
    return config


def said_by_transformers(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    name = "preprocessor_config.json"
    config = checkpoint.beside(name)
    if config is None:  # newer folders keep the image processor inside the whole processor's file
        name = "processor_config.json"
        config = (checkpoint.beside(name) or {}).get("image_processor")
    if not isinstance(config, dict):
        return name, {}
    said: dict[str, Any] = {}
    for theirs, ours in (("image_mean", "mean"), ("image_std", "std")):
        if config.get(theirs) is not None:
            said[ours] = config[theirs]
    if isinstance(config.get("resample"), int):
        said["interpolation"] = RESAMPLE.get(config["resample"], config["resample"])
    return name, said | sizes_of(config)


def sizes_of(config: dict[str, Any]) -> dict[str, Any]:
    """{"shortest_edge": n} keeps the picture's shape, {"height": n, "width": n} squashes it."""
    size, crop = config.get("size"), config.get("crop_size")
    said: dict[str, Any] = {}
    if isinstance(size, dict):
        said["resize_mode"] = "shortest" if "shortest_edge" in size else "squash"
        size = size.get("shortest_edge", size.get("height"))
    if isinstance(crop, dict):
        crop = crop.get("height")
    if crop is not None or size is not None:
        said["size"] = size if crop is None else crop
    return said


def said_by_open_clip(checkpoint: Checkpoint, config: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = dict(config["preprocess_cfg"])
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    if "size" not in said and isinstance(vision, dict) and vision.get("image_size") is not None:
        said["size"] = vision["image_size"]
    if "size" in said:
        said["size"] = square(checkpoint.folder / "open_clip_config.json", "size", said["size"])
        if isinstance(said["size"], list):
            said["size"] = said["size"][0]
    return said


def checked(where: str, field: str, value: Any) -> Any:
    if field in ("mean", "std"):
        numbers = isinstance(value, list) and len(value) == 3
        if numbers and all(type(n) in (int, float) and abs(n) < 1000 for n in value):
            return tuple(float(n) for n in value)
        expected = "three numbers"
    elif field == "size":
        if type(value) is int and 0 < value < 2**16:
            return value
        expected = "pixels along a side"
    else:
        choices = RESIZE_MODES if field == "resize_mode" else tuple(RESAMPLE.values())
        if isinstance(value, str) and value in choices:
            return value
        expected = f"one of {', '.join(choices)}"
    raise CheckpointError(f"{where}: {field} is {kind_of(value)}, expected {expected}")
