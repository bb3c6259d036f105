"""Configurations of preprocessing as transformers and open_clip write them, and what they mean."""

import json

import numpy as np
from hypothesis import strategies as st
from picture_checks import noise
from PIL import Image, ImageOps

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDE = 32  # of the model that pictures are prepared for

# transformers ------------------------------------------------------------------------------------

USUAL = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(MEAN),
    "image_std": list(STD),
}
FLAGS = [True, False, None, "no", 1]
# Every field that a preprocessor_config.json of transformers can have, and one that it cannot.
VALUES = {
    "image_processor_type": ["CLIPImageProcessorFast", None, "SiglipImageProcessor", 3],
    "feature_extractor_type": ["CLIPFeatureExtractor", "ViTFeatureExtractor", None],
    "do_convert_rgb": FLAGS,
    "do_resize": FLAGS,
    "size": [SIDE, 40, 20, [SIDE, SIDE], [SIDE, 40], [40, 40], None, "32", 0, 32.0]
    + [{"shortest_edge": n} for n in (SIDE, 24, 45, None, True)]
    + [{"height": n, "width": m} for n, m in ((SIDE, SIDE), (40, 40), (40, SIDE), (20, 20))]
    + [{"shortest_edge": SIDE, "longest_edge": 40}, {"longest_edge": SIDE}, {}]
    + [{"max_height": SIDE, "max_width": SIDE}, {"height": SIDE}],
    "default_to_square": FLAGS,
    "use_square_size": FLAGS,
    "resample": [2, 3, 0, 1, 4, 5, 7, None, "bicubic", "2", 2.0, True],
    "do_center_crop": FLAGS,
    "crop_size": [SIDE, 40, [SIDE, SIDE], [SIDE, 40], {"shortest_edge": SIDE}, None, "32"]
    + [{"height": n, "width": m} for n, m in ((SIDE, SIDE), (SIDE, 40), (40, 40))],
    "do_rescale": FLAGS,
    "rescale_factor": [1 / 255, 1, 0.5, 1 / 127.5, None, "1/255", 0, -1.0],
    "do_normalize": FLAGS,
    "image_mean": [[0.5, 0.5, 0.5], [0.1, 0.2, 0.3], 0.5, 0, [0.5], None, "0.5", ["0", "0", "0"]],
    "image_std": [[0.5, 0.4, 0.3], 0.5, [1, 1, 1], [0.5, 0.5], None, [-1, 1, 1], True],
    "do_pad": FLAGS,
    "pad_size": [{"height": 50, "width": 50}, None, 50],
    "data_format": ["channels_first", "channels_last", None],
    "input_data_format": ["channels_first", "channels_last", None],
    "device": ["cpu", None],
    "return_tensors": ["np", None],
    "disable_grouping": [True, None],
    "image_seq_length": [3, None],
    "processor_class": ["CLIPProcessor", None],
    "do_flip_channel_order": [True, None],
}
MODES = ("RGB", "RGBA", "L", "LA", "P", "P transparent", "P alphas", "1", "CMYK", "I;16")


def changed(usual, values):
    """A strategy: the usual configuration with some fields changed, and some left out."""
    one = st.sampled_from(sorted(values)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(values[name]))
    )
    left_out = st.lists(st.sampled_from(sorted(usual)), max_size=1)

    def build(new, gone):
        config = {name: value for name, value in usual.items() if name not in gone}
        return config | dict(new)

    return st.builds(build, st.lists(one, max_size=3), left_out)


def shown():
    """A strategy: pictures of all modes, long and tall and square."""
    side = st.integers(9, 90)
    return st.builds(noise, st.sampled_from(MODES), side, side, st.integers(0, 9))


def ask_transformers(config, picture):
    """What its image processor makes of a picture; None where it refuses too."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        processor = CLIPImageProcessorPil.from_dict(json.loads(json.dumps(config)))
        return np.asarray(processor(picture)["pixel_values"][0], np.float32)
    except Exception:
        return None


# open_clip ---------------------------------------------------------------------------------------

OPEN_CLIP_USUAL = {
    "size": SIDE,
    "mode": "RGB",
    "mean": list(MEAN),
    "std": list(STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
OPEN_CLIP_VALUES = {
    "size": [SIDE, [SIDE, SIDE], [SIDE, 40], 40, None, "32"],
    "mode": ["RGB", "L", None],
    "mean": [[0.5, 0.5, 0.5], 0.5, None, [0.5], "0.5"],
    "std": [[0.5, 0.4, 0.3], 0.25, None, [0.5, 0.5], [0, 1, 1]],
    "interpolation": ["bicubic", "bilinear", "random", "nearest", None, 3],
    "resize_mode": ["shortest", "squash", "longest", "crop", None],
    "fill_color": [0, 255, 99, None, -1, 256, [1, 2, 3], 0.5, True],
    "crop_pct": [0.9, None],
}


def ask_open_clip(config, picture):
    """`image_transform` of open_clip/transform.py for inference, from its rules, with Pillow.

    null means the default. Written for valid values only; None for those that open_clip refuses.
    """
    said = OPEN_CLIP_USUAL | {name: value for name, value in config.items() if value is not None}
    n, mode = SIDE, said["resize_mode"]  # the model's own size overrules the configuration's
    bilinear = said["interpolation"] == "bilinear"
    resample = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
    w, h = picture.size
    if mode == "squash":
        picture = picture.resize((n, n), resample)
    elif mode == "longest":
        picture = padded(picture.resize(kept_ratio(w, h, n), resample), n, said["fill_color"])
    else:
        picture = picture.resize((n, n * h // w) if w <= h else (n * w // h, n), resample)
        left, top = (round((side - n) / 2) for side in picture.size)
        picture = picture.crop((left, top, left + n, top + n))
    pixels = np.asarray(picture.convert("RGB"), np.float64) / 255
    mean, std = (np.broadcast_to(said[name], 3) for name in ("mean", "std"))
    if 0 in std:
        return None
    return ((pixels - mean) / std).transpose(2, 0, 1).astype(np.float32)


def kept_ratio(w, h, n):
    """ResizeKeepRatio(longest=1): the longer side fits."""
    ratio = max(h / n, w / n)
    return round(w / ratio), round(h / ratio)


def padded(picture, n, fill):
    """CenterCropOrPad with torchvision's pad, which expands by Pillow and keeps the palette."""
    dx, dy = n - picture.width, n - picture.height
    border = (dx // 2, dy // 2, (dx + 1) // 2, (dy + 1) // 2)
    palette = picture.getpalette() if picture.mode == "P" else None
    bands = len(picture.getbands())
    picture = ImageOps.expand(picture, border, fill if bands == 1 else (fill,) * bands)
    if palette is not None:
        picture.putpalette(palette)
    return picture
