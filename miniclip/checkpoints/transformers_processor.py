"""transformers' preprocessor_config.json, in and out: what its CLIPImageProcessor does to pictures.

Read into fields of `Transform` that give the same pixels. What `Transform` cannot do, and what no
CLIPImageProcessor has, is refused by its name, never skipped.
"""

from __future__ import annotations

from typing import Any

from miniclip.checkpoints.errors import CheckpointError, kind_of
from miniclip.checkpoints.json_files import as_object
from miniclip.inputs.preprocess import MEAN, STD

TYPES = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil")
OLD_TYPES = ("CLIPFeatureExtractor", *TYPES)
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, which transformers writes
# What the processor takes for a field that the file does not have. (null is not absent: it is off.)
DEFAULTS: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "use_square_size": False,
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "do_pad": False,
}
# Of these, none changes a pixel; pad_size counts only where do_pad is on, which is refused.
NEUTRAL = {"image_processor_type", "feature_extractor_type", "processor_class", "pad_size"}
NEUTRAL |= {"return_tensors", "device", "disable_grouping", "image_seq_length"}
NEUTRAL |= {"_valid_processor_keys", "_valid_kwargs_names"}
# An object of ours beside theirs: what a Transform says and CLIPImageProcessor has no word for.
OURS = "miniclip"
OUR_FIELDS = ("order", "alpha", "fill", "apply_exif")
LARGEST = 1000.0  # of a mean or a deviation; beyond it is damage


def processor_fields(where: str, config: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Transform` that make the same pixels as CLIPImageProcessor with this file.

    Raises CheckpointError that names the field.
    """
    check_known(where, config)
    config = DEFAULTS | config
    for name, expected in (("do_convert_rgb", True), ("do_resize", True), ("do_pad", False)):
        if switch(where, config, name) != expected:
            raise refused(where, name, config[name], str(expected).lower())
    # It converts to RGB first, lays transparent pictures on white, and rounds the crop down.
    fields = {"order": "hf", "alpha": "white", **sizes(where, config), **numbers(where, config)}
    resample = config["resample"]
    if type(resample) is not int or resample not in RESAMPLE:
        raise refused(where, "resample", resample, "2 (bilinear) or 3 (bicubic)")
    fields["interpolation"] = RESAMPLE[resample]
    ours = as_object(where, OURS, config.get(OURS))
    if unknown := sorted(set(ours) - set(OUR_FIELDS)):
        raise CheckpointError(f"{where}: {OURS}.{unknown[0]}: expected {', '.join(OUR_FIELDS)}")
    return fields | ours


def check_known(where: str, config: dict[str, Any]) -> None:
    """The processor is CLIP's, and every field that says something is one we know."""
    name = "image_processor_type"
    if config.get(name) is None and config.get("feature_extractor_type") is not None:
        name = "feature_extractor_type"  # before 2023 there was nothing else
    kind = config.get(name)
    if kind is not None and kind not in OLD_TYPES:
        raise refused(where, name, kind, TYPES[0])
    for field, value in config.items():
        if field in DEFAULTS or field in NEUTRAL or field == OURS or value is None:
            continue
        if field == "data_format" and value == "channels_first":
            continue
        raise CheckpointError(
            f"{where}: {field} is {kind_of(value)}: not a field of CLIP's image processor, and it "
            "may change pixels; remove it if it does not"
        )


def switch(where: str, config: dict[str, Any], name: str) -> bool:
    """A field that is on or off; null is off."""
    value = config[name]
    if value is not None and not isinstance(value, bool):
        raise refused(where, name, value, "true or false")
    return bool(value)


# Sizes -------------------------------------------------------------------------------------------


def sizes(where: str, config: dict[str, Any]) -> dict[str, Any]:
    """Resizing to `size`, then the crop: the side of the result is that of the crop."""
    mode, side = resized(where, config)
    fields: dict[str, Any] = {"resize_mode": mode, "size": side}
    if not switch(where, config, "do_center_crop"):
        if mode == "shortest":
            raise CheckpointError(
                f"{where}: do_center_crop is off, but size.shortest_edge leaves most pictures "
                "longer than wide: expected true, or a size of height and width"
            )
        return fields
    crop = config["crop_size"]
    fields["size"] = (
        pixels(where, "crop_size", crop)
        if type(crop) is int
        else equal_sides(where, "crop_size", crop)
    )
    if side != fields["size"]:
        fields["resize_to"] = side
    return fields


def resized(where: str, config: dict[str, Any]) -> tuple[str, int]:
    """How `size` is meant and its pixels: one number is the shorter side, or both sides."""
    size = config["size"]
    if switch(where, config, "use_square_size"):  # whatever else the file says
        return "squash", 224
    if type(size) is int:
        square = switch(where, config, "default_to_square")
        return "squash" if square else "shortest", pixels(where, "size", size)
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        return "shortest", pixels(where, "size.shortest_edge", size["shortest_edge"])
    return "squash", equal_sides(where, "size", size)


def equal_sides(where: str, field: str, value: Any) -> int:
    """The side of {"height": n, "width": n}, or of [n, n]."""
    sides = value
    if isinstance(value, dict) and set(value) == {"height", "width"}:
        sides = [value["height"], value["width"]]
    if not isinstance(sides, list) or len(sides) != 2 or sides[0] != sides[1]:
        also = ", or shortest_edge alone" if field == "size" else ""
        raise refused(where, field, value, f"pixels, equal height and width{also}")
    return pixels(where, field, sides[0])


def pixels(where: str, field: str, value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**16:
        raise refused(where, field, value, "pixels along a side")
    return value


# Numbers -----------------------------------------------------------------------------------------


def numbers(where: str, config: dict[str, Any]) -> dict[str, Any]:
    """Rescaling and normalising as one: `(gain x - mean) / std`, with x the pixels in [0, 1]."""
    gain = 255.0
    if switch(where, config, "do_rescale"):
        factor = config["rescale_factor"]
        if not is_number(factor) or not 1e-6 < factor < 1e6:
            raise refused(where, "rescale_factor", factor, "a positive number such as 1/255")
        gain = 255 * factor
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if switch(where, config, "do_normalize"):
        mean = three(where, "image_mean", config["image_mean"])
        std = three(where, "image_std", config["image_std"])
        if min(std) <= 0:
            raise refused(where, "image_std", config["image_std"], "positive numbers")
    if abs(gain - 1) < 1e-9:  # the usual: no rounding of the numbers
        return {"mean": mean, "std": std}
    return {"mean": tuple(m / gain for m in mean), "std": tuple(s / gain for s in std)}


def three(where: str, field: str, value: Any) -> tuple[float, float, float]:
    """Three numbers; one alone is meant for all channels."""
    channels = value if isinstance(value, list) else [value] * 3
    if len(channels) != 3 or not all(is_number(n) and abs(n) < LARGEST for n in channels):
        raise refused(where, field, value, "three numbers (or one)")
    red, green, blue = map(float, channels)
    return red, green, blue


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def refused(where: str, field: str, value: Any, expected: str) -> CheckpointError:
    return CheckpointError(f"{where}: {field} is {kind_of(value)}, expected {expected}")


# And back ----------------------------------------------------------------------------------------


def to_processor(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """A preprocessor_config.json for transformers, from fields of `Transform`.

    What CLIPImageProcessor has no word for stands under "miniclip": transformers does not heed it,
    `processor_fields` does. Raises ValueError for resize_mode "longest", where pictures for the two
    would have nothing in common.
    """
    mode = preprocessing.get("resize_mode", "shortest")
    if mode == "longest":
        raise ValueError("preprocessing: transformers has no resize_mode 'longest'")
    config: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor", "do_resize": True}
    config |= {"do_center_crop": True, "do_rescale": True, "do_normalize": True}
    config |= {"do_convert_rgb": True, "rescale_factor": 1 / 255}
    if "size" in preprocessing:
        crop = preprocessing["size"]
        side = preprocessing.get("resize_to") or crop
        config["size"] = {"shortest_edge": side} if mode == "shortest" else both(side)
        config["crop_size"] = both(crop)
    names = {name: number for number, name in RESAMPLE.items()}
    config["resample"] = names[preprocessing.get("interpolation", "bicubic")]
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
        if ours in preprocessing:
            config[theirs] = list(preprocessing[ours])
    config[OURS] = {field: preprocessing[field] for field in OUR_FIELDS if field in preprocessing}
    return config


def both(side: int) -> dict[str, int]:
    return {"height": side, "width": side}
