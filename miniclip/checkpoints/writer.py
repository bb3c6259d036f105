"""Writing checkpoints: files that the original, open_clip, transformers and miniclip load.

Everything is written into temporary files beside the target, flushed to the disk, and then put in
place by renaming: whoever looks sees the old file or the new one, never half of one. Tensors go to
the disk one by one, so that no second copy of the model is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from miniclip.checkpoints import notes
from miniclip.checkpoints.layouts import to_hf
from miniclip.checkpoints.preprocessing import FIELDS
from miniclip.checkpoints.reader import WEIGHTS
from miniclip.checkpoints.tensor_shapes import tensor_shapes
from miniclip.checkpoints.transformers_processor import to_processor
from miniclip.files import as_path, made_folder, write_files, writer
from miniclip.models import CLIPConfig
from miniclip.ops.array import Array

LAYOUTS = ("openai", "hf")
Notes = dict[str, str]


def save_checkpoint(
    state: Mapping[str, Array],
    config: CLIPConfig,
    path: str | os.PathLike[str],
    layout: str = "openai",
    preprocess: dict[str, Any] | None = None,
) -> Path:
    """Write a model's state; returns the path of the safetensors file. Tensors become float32.

    state: name -> NumPy array, as `state_dict` gives it (a GPU's arrays: `ops.to_numpy` first).
    layout "openai": path is one `.safetensors` file with the original's keys. What its tensors do
    not tell (activation, heads, ...) goes into the notes of its header, which `read_model` reads.
    layout "hf": path is a folder, which is made: model.safetensors and config.json, as transformers
    reads them, and preprocessor_config.json if preprocess is given. ViT only.
    preprocess: fields of `Transform`, as `read_model` gives them. Layout "hf" keeps those that
    transformers' CLIPImageProcessor does not know under a name of ours, and refuses resize_mode
    "longest".

    Raises ValueError (nothing is written) if state is not one of config, or the layout cannot hold
    it; OSError from the disk, after which the old files are as before and there are no new ones.
    """
    check_state(state, config)
    if layout == "openai":
        return save_openai(state, config, as_path(path), preprocess or {})
    if layout == "hf":
        return save_hf(state, config, as_path(path), preprocess)
    raise ValueError(f"layout: got {layout!r}, expected one of {', '.join(LAYOUTS)}")


def check_state(state: Mapping[str, Array], config: CLIPConfig) -> None:
    """The state has all tensors of the configuration, in their shapes, and no other."""
    expected = tensor_shapes(config)
    wrong = sorted(set(state) ^ set(expected))
    if wrong:
        what = "missing" if wrong[0] in expected else "not a tensor of this configuration"
        raise ValueError(f"state: {wrong[0]!r} is {what}")
    for name, array in state.items():
        if tuple(array.shape) != expected[name]:
            raise ValueError(
                f"state: {name!r} has shape {tuple(array.shape)}, expected {expected[name]}"
            )


def save_openai(
    state: Mapping[str, Array], config: CLIPConfig, path: Path, preprocess: dict[str, Any]
) -> Path:
    if path.suffix != ".safetensors" or path.is_dir():
        raise ValueError(f"path: got {path}, expected a .safetensors file for layout 'openai'")
    kept = {"format": "pt", notes.CONFIG: notes.config_note(config)}
    if preprocess:
        kept[notes.PREPROCESSING] = notes.preprocessing_note(
            {field: preprocess[field] for field in FIELDS if preprocess.get(field) is not None}
        )
    with made_folder(path.parent):
        write_files({path: lambda file: write_safetensors(file, state, kept)})
    return path


def save_hf(
    state: Mapping[str, Array], config: CLIPConfig, folder: Path, preprocess: dict[str, Any] | None
) -> Path:
    tensors, described = to_hf(state, config)
    described |= {"dtype": "float32"}
    rivals = [name for name in WEIGHTS if name != "model.safetensors" and (folder / name).exists()]
    if rivals:
        raise ValueError(f"path: {folder} already holds {rivals[0]}; expected a folder of its own")
    texts = {"config.json": described}
    if preprocess is not None:
        side = {} if config.vision is None else {"size": config.vision.image_resolution}
        texts["preprocessor_config.json"] = to_processor(side | preprocess)
    files = {folder / name: json_writer(content) for name, content in texts.items()}
    weights = folder / "model.safetensors"
    files[weights] = lambda file: write_safetensors(file, tensors, {"format": "pt"})
    with made_folder(folder):
        write_files(files)
    return weights


def json_writer(content: dict[str, Any]) -> Callable[[BinaryIO], None]:
    return writer(json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")


def write_safetensors(file: BinaryIO, tensors: Mapping[str, Array], notes: Notes) -> None:
    """The format: the header's length, the header, and the tensors' bytes as float32."""
    header: dict[str, Any] = {"__metadata__": notes}
    at = 0
    for name, array in tensors.items():
        end = at + 4 * int(np.prod(array.shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)  # so that every tensor begins where its numbers are aligned
    file.write(len(data).to_bytes(8, "little") + data)
    for array in tensors.values():
        file.write(np.ascontiguousarray(array, "<f4").data)
