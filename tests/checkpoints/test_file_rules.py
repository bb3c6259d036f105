"""Headers, notes, keys and image processors, at the ends of what each rule allows."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_files import VIT, original_file, pack, state_of, tensor, transformers_folder
from safetensors.torch import load_file, save_file

from miniclip.checkpoints import CheckpointError, layouts, open_checkpoint, read_model, to_hf
from miniclip.checkpoints import preprocessing as readers
from miniclip.checkpoints import safetensors_header as header
from miniclip.checkpoints.transformers_processor import processor_fields, to_processor
from miniclip.checkpoints.writer import save_checkpoint
from miniclip.inputs.preprocess import MEAN, STD, Transform


def said(call, *arguments, **options):
    with pytest.raises(CheckpointError) as error:
        call(*arguments, **options)
    return str(error.value)


def opened(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    return open_checkpoint(path)


# ---------------------------------------------------------------- headers

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.values())
def test_every_dtype_as_its_writer_wrote_it(dtype, tmp_path):
    values = torch.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype)
    save_file({"before": torch.zeros(3), "x": values}, tmp_path / "m.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.dtype("x") == DTYPES[dtype]
    got = checkpoint.array("x")
    np.testing.assert_array_equal(got, values.float().numpy())
    widened = dtype in (torch.float16, torch.bfloat16)
    expected = np.float32 if widened else values.numpy().dtype
    assert got.dtype == expected
    got[:] = 1  # copy on write: the file stays
    np.testing.assert_array_equal(open_checkpoint(tmp_path).array("x"), values.float().numpy())


@pytest.mark.parametrize(("name", "dtype"), [("U16", "<u2"), ("U32", "<u4"), ("U64", "<u8")])
def test_unsigned_numbers(name, dtype, tmp_path):
    data = np.array([1, 2**15 + 7], dtype)
    content = pack({"a": tensor(0, data.nbytes, (2,), name)}, data.tobytes())
    assert opened(tmp_path, content).array("a").tolist() == data.tolist()


def test_sizes_of_all_dtypes():
    assert {n: np.dtype(d).itemsize for n, d in header.DTYPES.items()} == header.ITEM_BYTES
    assert len(header.DTYPES) == 13


def test_the_smallest_files(tmp_path):
    assert opened(tmp_path, pack({})).keys() == []
    for size in (1, 8):
        message = said(opened, tmp_path, b"\x02" + bytes(size - 1))
        path = tmp_path / "m.safetensors"
        assert message == (
            f"{path}: {size} bytes, expected at least 9: the header's length and the header"
        )
    assert said(opened, tmp_path, b"").endswith("m.safetensors: the file is empty")
    assert "m.safetensors: its JSON is not valid: " in said(opened, tmp_path, pack(b"{"))


def test_a_header_as_long_as_is_allowed(tmp_path, monkeypatch):
    content = pack({"a": tensor()}, bytes(8))
    length = len(content) - 16
    monkeypatch.setattr(header, "MAX_JSON", length)
    assert opened(tmp_path, content).keys() == ["a"]
    monkeypatch.setattr(header, "MAX_JSON", length - 1)
    assert said(opened, tmp_path, content) == (
        f"{tmp_path / 'm.safetensors'}: its first 8 bytes give a header of {length} bytes, expected"
        f" at most {length - 1} (the file has {length + 16}; truncated, or not safetensors?)"
    )


def test_sizes_at_their_ends(tmp_path):
    largest = 2**63 - 1
    content = pack({"a": tensor(0, 0, (largest, 0)), "b": tensor(0, 4, (1,) * 8)}, bytes(4))
    assert opened(tmp_path, content).shapes == {"a": (largest, 0), "b": (1,) * 8}
    path = tmp_path / "m.safetensors"
    for entry, message in (
        (tensor(0, 0, (largest + 1, 0)), f"has shape list [{largest + 1}, 0], expected at most 8 "
                                         f"sizes from 0 to {largest}"),
        (tensor(0, 4, (1,) * 9), "has shape list [1, 1, 1, 1, 1, 1, 1, 1, 1], expected at most 8 "
                                 f"sizes from 0 to {largest}"),
        (tensor(4, 0), "has data_offsets list [4, 0], expected [begin, end] with begin <= end"),
        (tensor() | {"data_offsets": [0, 8, 8]}, "has data_offsets list [0, 8, 8], expected [begin,"
                                                 " end] with begin <= end"),
        (tensor() | {"data_offsets": [-8, 0]}, "has data_offsets list [-8, 0], expected [begin, "
                                               "end] with begin <= end"),
        (tensor(0, 7), "has 7 bytes, expected 8 for F32 of shape [2]"),
        (tensor() | {"x": 1}, "is dict {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8], 'x': "
                              "1}, expected an object of dtype, shape and data_offsets"),
    ):  # fmt: skip
        told = said(opened, tmp_path, pack({"a": entry}, bytes(8)))
        assert re.sub(r" is dict .*\.\.\.,", " is dict ...,", told) == re.sub(
            r" is dict .*\},", " is dict ...,", f"{path}: 'a' {message}"
        )


def test_every_byte_belongs_to_one_tensor(tmp_path):
    def told(data, **entries):
        message = said(opened, tmp_path, pack(entries, bytes(data)))
        return message.removeprefix(f"{tmp_path / 'm.safetensors'}: ")

    a, b = tensor(0, 8), tensor(8, 16)
    assert told(16, a=a, b=tensor(4, 12)) == (
        "'b' begins at byte 4 of the data and overlaps 'a', expected 8"
    )
    assert told(24, b=tensor(16, 24), a=a) == (
        "'b' begins at byte 16 of the data and leaves a hole after 'a', expected 8"
    )
    assert told(16, b=b) == (
        "'b' begins at byte 8 of the data and leaves a hole after the header, expected 0"
    )
    assert told(17, a=a, b=b) == "17 bytes of data, expected 16: what its tensors fill"
    assert told(15, a=a, b=b) == (
        "'b' ends at byte 16 of the data, expected at most 15 (is the file truncated?)"
    )
    none = tensor(8, 8, (0,))
    content = pack({"b": b, "none": none, "a": a}, np.arange(4, dtype="<f4").tobytes())
    checkpoint = opened(tmp_path, content)
    assert checkpoint.keys() == ["b", "none", "a"]
    assert (checkpoint.array("a").tolist(), checkpoint.array("b").tolist()) == ([0, 1], [2, 3])


@pytest.mark.parametrize("notes", [{"a": 1}, [], "x", {"a": "b", "c": None}])
def test_notes_are_texts(notes, tmp_path):
    kind = f"{type(notes).__name__} {notes!r}"
    message = f"{tmp_path / 'm.safetensors'}: __metadata__ is {kind}, expected an object of strings"
    assert said(opened, tmp_path, pack({"__metadata__": notes})) == message


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"PK\x03\x04" + bytes(9), "its content is a pickle (a PyTorch file): a pickle can run"),
        (b"\x80\x02" + bytes(9), "its content is a pickle (a PyTorch file): a pickle can run"),
        (b"\x80\x05}q\x00", "its content is a pickle (a PyTorch file): a pickle can run"),
        (b"\x80\x06" + bytes(9), "its first 8 bytes give a header of 1664 bytes, expected at most"),
        (b"version https://git-lfs.github.com", "this is a Git LFS pointer, not the weights; `git "
                                                "lfs pull` fetches them"),
        (b"\x80\x02\0\0\0\0\0\0{", "its first 8 bytes give a header of 640 bytes"),
    ],
)  # fmt: skip
def test_what_is_taken_for_a_checkpoint(start, message, tmp_path):
    told = said(opened, tmp_path, start)
    assert told.startswith(f"{tmp_path / 'm.safetensors'}: {message}")


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (["module.visual.proj", "module.logit_scale"], "module."),
        (["a.b.token_embedding.weight", "a.b.x"], "a.b."),
        (["a.b.text.x", "a.c"], ""),
        (["a.vision_model.x", "a.text_model.x"], "a."),
        (["visual.proj"], ""),
        (["a.x", "a.y"], ""),
        ([], ""),
    ],
)
def test_what_stands_before_all_keys(keys, prefix):
    assert layouts.common_prefix(keys) == prefix


def test_which_keys_have_no_place(tmp_path):
    path = tmp_path / "m.safetensors"
    tensors = load_file(original_file("vit"))
    extra = {"x.num_batches_tracked": torch.tensor(1), "attn_mask": torch.zeros(2),
             "a.position_ids": torch.zeros(2), "vocab_size": torch.tensor(3)}  # fmt: skip
    save_file(tensors | extra, path)
    assert read_model(path, activation="gelu").state.keys() == state_of("vit").keys()
    theirs = load_file(transformers_folder()[0] / "model.safetensors")
    for wrong in ({"vision_model.x": torch.zeros(2)}, {"x_position_ids": torch.zeros(2)}):
        save_file(theirs | wrong, path)
        assert said(read_model, path, activation="gelu") == (
            f"{path}: {next(iter(wrong))!r} belongs to no tensor of a CLIP in the layout 'hf'"
        )


def test_q_k_and_v_fit_together(tmp_path):
    path = tmp_path / "m.safetensors"
    theirs = load_file(transformers_folder()[0] / "model.safetensors")
    stem = "text_model.encoder.layers.0.self_attn"
    for shape in ((63,), ()):
        save_file(theirs | {f"{stem}.v_proj.bias": torch.zeros(shape)}, path)
        assert said(read_model, path, activation="gelu") == (
            f"{path}: '{stem}.v_proj.bias' has shape {shape}, expected (64,), that of "
            f"'{stem}.q_proj.bias'"
        )
    scalars = {f"{stem}.{n}_proj.bias": torch.zeros(()) for n in "qkv"}
    save_file(theirs | scalars, path)
    assert "has shape ()" in said(read_model, path, activation="gelu")


def test_a_tensor_of_each_tower_that_does_not_fit(tmp_path):
    path = tmp_path / "m.safetensors"
    theirs = load_file(transformers_folder()[0] / "model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc2.bias"
    save_file(theirs | {name: torch.zeros(127)}, path)
    assert said(read_model, path, activation="gelu") == (
        f"{path}: '{name}' has shape (127,) (as visual.transformer.resblocks.0.mlp.c_proj.bias), "
        "expected (128,)"
    )


def test_names_of_transformers_and_back():
    state = state_of("vit")
    tensors, _ = to_hf(state, VIT)
    theirs = load_file(transformers_folder()[0] / "model.safetensors")
    assert tensors.keys() == theirs.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, theirs[name].numpy())
    for other in ("vision", "text"):
        alone, _ = to_hf(state, replace(VIT, **{other: None}))
        assert alone.keys() == {
            name
            for name in theirs
            if not name.startswith(
                (f"{other}_", "logit_scale", "visual_" if other == "vision" else "-")
            )
        }


def test_what_a_checkpoint_says_of_itself(tmp_path):
    checkpoint = open_checkpoint(original_file("vit"))
    assert repr(checkpoint) == (
        f"Checkpoint({str(original_file('vit'))!r}, {len(checkpoint.keys())} tensors)"
    )
    assert checkpoint.file_of("no such key") == checkpoint.path
    for call in (checkpoint.shape, checkpoint.dtype, checkpoint.array):
        assert said(call, "x") == f"{checkpoint.path}: it has no key 'x'"
    assert checkpoint.beside("config.json") is None
    many = tmp_path / "many"
    many.mkdir()
    for n in range(10):
        (many / f"{n}.safetensors").write_bytes(b"x")
    names = ", ".join(f"{n}.safetensors" for n in range(8))
    assert said(open_checkpoint, many) == (
        f"{many}: holds {names}; expected one (or model.safetensors): give the path of the file"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "weight_map is NoneType None, expected key -> file"),
        ({"weight_map": {}}, "weight_map is dict {}, expected key -> file"),
        ({"weight_map": ["a"]}, "weight_map is list ['a'], expected key -> file"),
        *[
            ({"weight_map": {"a": name}},
             f"'a' is in {type(name).__name__} {name!r}, expected a .safetensors file of the same "
             "folder")
            for name in (3, "a.bin", "../a.safetensors", "b\\a.safetensors", "c:a.safetensors",
                         "a\0.safetensors")
        ],
        ({"weight_map": {"a": "a.safetensors"}}, "names the shard 'a.safetensors', which is not in "
                                                 "its folder"),
    ],
)  # fmt: skip
def test_indices_that_are_none(content, message, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps(content))
    assert said(open_checkpoint, tmp_path) == f"{index}: {message}"


def test_what_is_written_is_aligned_and_noted(tmp_path):
    state = state_of("vit")
    said_of = {"fill": 3, "x": 1, "mean": None}
    path = save_checkpoint(state, VIT, tmp_path / "m.safetensors", preprocess=said_of)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    content = json.loads(raw[8 : 8 + length])
    assert list(content)[1:] == list(state)
    notes = content["__metadata__"]
    assert (notes["format"], json.loads(notes["miniclip_preprocessing"])) == ("pt", {"fill": 3})
    assert b'": ' not in raw[8 : 8 + length].split(b'"__metadata__"')[0]
    folder = tmp_path / "hf"
    save_checkpoint(state, VIT, folder, "hf", {"fill": 3})
    for name in ("config.json", "preprocessor_config.json"):
        text = (folder / name).read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert json.loads((folder / "preprocessor_config.json").read_text())["crop_size"] == {
        "height": 32,
        "width": 32,
    }


# ---------------------------------------------------------------- image processors

USUAL = {
    "order": "hf", "alpha": "white", "resize_mode": "shortest", "size": 224, "mean": MEAN,
    "std": STD, "interpolation": "bicubic",
}  # fmt: skip
SQUARE = {"resize_mode": "squash"}


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({}, {}),
        ({"image_processor_type": "CLIPImageProcessorFast", "data_format": "channels_first"}, {}),
        ({"feature_extractor_type": "CLIPFeatureExtractor"}, {}),
        ({"size": 224, "resample": 2, "do_pad": None}, {"interpolation": "bilinear"}),
        ({"size": 30}, {"resize_to": 30}),
        ({"size": {"shortest_edge": 30}, "crop_size": 20}, {"size": 20, "resize_to": 30}),
        ({"size": 30, "default_to_square": True}, SQUARE | {"resize_to": 30}),
        ({"size": [30, 30], "crop_size": [30, 30]}, SQUARE | {"size": 30}),
        ({"size": {"height": 30, "width": 30}, "do_center_crop": None}, SQUARE | {"size": 30}),
        ({"size": "?", "use_square_size": True}, SQUARE),
        ({"size": 65535, "crop_size": 1}, {"size": 1, "resize_to": 65535}),
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"do_rescale": None, "do_normalize": False}, {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}),
        ({"image_mean": 0.5, "image_std": [1, 2, 999.9]},
         {"mean": (0.5,) * 3, "std": (1.0, 2.0, 999.9)}),
        ({"rescale_factor": 2 / 255, "image_mean": [0.2, 0.4, -0.6], "image_std": 0.5},
         {"mean": (0.1, 0.2, -0.3), "std": (0.25,) * 3}),
        ({"miniclip": {"order": "openai", "fill": 7}}, {"order": "openai", "fill": 7}),
    ],
)  # fmt: skip
def test_fields_of_an_image_processor(config, fields):
    got, expected = processor_fields("w", config), USUAL | fields
    for name in ("mean", "std"):
        np.testing.assert_allclose(got.pop(name), expected.pop(name), rtol=1e-12)
    assert got == expected


def pixels(field, kind):
    return f"{field} is {kind}, expected pixels along a side"


EQUAL = "expected pixels, equal height and width"
SHORTEST = "size.shortest_edge"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"size": 0}, pixels("size", "int 0")),
        ({"size": 65536}, pixels("size", "int 65536")),
        ({"size": {"shortest_edge": True}}, pixels(SHORTEST, "bool True")),
        ({"size": {"shortest_edge": 9.0}}, pixels(SHORTEST, "float 9.0")),
        ({"size": [9, 8]}, f"size is list [9, 8], {EQUAL}, or shortest_edge alone"),
        ({"size": [9]}, f"size is list [9], {EQUAL}, or shortest_edge alone"),
        ({"size": {"height": 9}}, f"size is dict {{'height': 9}}, {EQUAL}, or shortest_edge alone"),
        ({"crop_size": [9, 8]}, f"crop_size is list [9, 8], {EQUAL}"),
        ({"crop_size": None}, f"crop_size is NoneType None, {EQUAL}"),
        ({"crop_size": -1}, pixels("crop_size", "int -1")),
        ({"do_resize": None}, "do_resize is NoneType None, expected true"),
        ({"do_convert_rgb": False}, "do_convert_rgb is bool False, expected true"),
        ({"do_pad": True}, "do_pad is bool True, expected false"),
        ({"do_rescale": 1}, "do_rescale is int 1, expected true or false"),
        ({"rescale_factor": 1e6}, "rescale_factor is float 1000000.0, expected a positive number "
                                  "such as 1/255"),
        ({"rescale_factor": 1e-6}, "rescale_factor is float 1e-06, expected a positive number such "
                                   "as 1/255"),
        ({"rescale_factor": True}, "rescale_factor is bool True, expected a positive number such as"
                                   " 1/255"),
        ({"image_mean": [1000.0, 0, 0]}, "image_mean is list [1000.0, 0, 0], expected three numbers"
                                         " (or one)"),
        ({"image_mean": [0, 0]}, "image_mean is list [0, 0], expected three numbers (or one)"),
        ({"image_std": [1, 0, 1]}, "image_std is list [1, 0, 1], expected positive numbers"),
        ({"resample": 1}, "resample is int 1, expected 2 (bilinear) or 3 (bicubic)"),
        ({"resample": 3.0}, "resample is float 3.0, expected 2 (bilinear) or 3 (bicubic)"),
        ({"miniclip": {"size": 3}}, "miniclip.size: expected order, alpha, fill, apply_exif"),
        ({"miniclip": 3}, "miniclip is int 3, expected an object"),
        ({"image_processor_type": "X"}, "image_processor_type is str 'X', expected "
                                        "CLIPImageProcessor"),
        ({"feature_extractor_type": "X"}, "feature_extractor_type is str 'X', expected "
                                          "CLIPImageProcessor"),
        ({"do_center_crop": False}, "do_center_crop is off, but size.shortest_edge leaves most "
         "pictures longer than wide: expected true, or a size of height and width"),
        ({"data_format": "x"}, "data_format is str 'x': not a field of CLIP's image processor, and "
                               "it may change pixels; remove it if it does not"),
    ],
)  # fmt: skip
def test_image_processors_word_for_word(config, message):
    assert said(processor_fields, "w", config) == f"w: {message}"


def test_an_image_processor_for_transformers():
    whole = {"size": 20, "resize_to": 30, "mean": (1, 2, 3), "std": (4, 5, 6), "fill": 7}
    whole |= {"interpolation": "bilinear", "order": "hf", "alpha": "drop", "apply_exif": True}
    switches = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
    base = {"image_processor_type": "CLIPImageProcessor", "rescale_factor": 1 / 255}
    base |= dict.fromkeys(switches, True)
    crop = {"height": 20, "width": 20}
    assert to_processor(whole) == base | {
        "size": {"shortest_edge": 30}, "crop_size": crop, "resample": 2, "image_mean": [1, 2, 3],
        "image_std": [4, 5, 6],
        "miniclip": {"order": "hf", "alpha": "drop", "fill": 7, "apply_exif": True},
    }  # fmt: skip
    squash = to_processor({"size": 20, "resize_mode": "squash"})
    assert squash == base | {"size": crop, "crop_size": crop, "resample": 3, "miniclip": {}}
    wide = to_processor({"size": 20, "resize_mode": "squash", "resize_to": 30})
    assert wide["size"] == {"height": 30, "width": 30}
    assert to_processor({"size": 20})["size"] == {"shortest_edge": 20}
    assert to_processor({}) == base | {"resample": 3, "miniclip": {}}
    with pytest.raises(
        ValueError, match=r"^preprocessing: transformers has no resize_mode 'longes"
    ):
        to_processor({"resize_mode": "longest"})


# ---------------------------------------------------------------- preprocessing that is said


def test_fields_of_open_clip():
    assert readers.open_clip_fields("w", {"mode": "RGB", "size": None}) == {}
    config = {"size": [9, 9], "mean": 0.5, "std": [1, 2, 3], "fill_color": 4,
              "interpolation": "random", "resize_mode": "longest"}  # fmt: skip
    assert readers.open_clip_fields("w", config) == {
        "size": 9, "mean": [0.5] * 3, "std": [1, 2, 3], "fill": 4, "interpolation": "bicubic",
        "resize_mode": "longest",
    }  # fmt: skip
    assert readers.open_clip_fields("w", {"interpolation": "bilinear", "mean": 0}) == {
        "interpolation": "bilinear",
        "mean": 0,
    }
    for config, message in (
        ({"mode": "L"}, "preprocess_cfg.mode is str 'L', expected RGB"),
        ({"crop_pct": 1}, "preprocess_cfg.crop_pct is int 1: not a field of open_clip's"),
        ({"fill": 1}, "preprocess_cfg.fill is int 1: not a field of open_clip's"),
        ({"size": [8, 9]}, "preprocess_cfg.size is list [8, 9], expected a square"),
    ):
        assert said(readers.open_clip_fields, "w", config) == f"w: {message}"


def test_values_that_a_transform_takes():
    for field, value in (
        ("apply_exif", True), ("fill", 0), ("fill", 255), ("size", 1), ("size", 65535),
        ("resize_to", 3), ("order", "hf"), ("alpha", "white"), ("interpolation", "bilinear"),
        ("resize_mode", "squash"),
    ):  # fmt: skip
        assert readers.checked("w", field, value) == value
    assert readers.checked("w", "mean", [0, -999999.9, 2]) == (0.0, -999999.9, 2.0)
    assert readers.checked("w", "std", (1e-9, 1, 2)) == (1e-9, 1.0, 2.0)
    assert type(readers.checked("w", "mean", [0, 1, 2])[0]) is float


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("mean", [[1, 2], [1, 2, "3"], [1, 2, 1e6], [True, 1, 2], 0.5, None], "three numbers"),
        ("std", [[1, 2], [0, 1, 2], [1, 2, -1], "abc"], "three positive numbers"),
        ("order", ["HF", 1, ["hf"]], "one of openai, hf"),
        ("apply_exif", [1, None, "true"], "true or false"),
        ("fill", [-1, 256, 1.0, True], "0 to 255"),
        ("size", [0, 65536, 1.0, True, "32"], "pixels along a side"),
        ("resize_to", [0, None], "pixels along a side"),
    ],
)
def test_values_that_a_transform_does_not_take(field, values, expected):
    for value in values:
        kind = f"{type(value).__name__} {value!r}"
        message = f"w: {field} is {kind}, expected {expected}"
        assert said(readers.checked, "w", field, value) == message


def write(folder, name, **content):
    (folder / name).write_text(json.dumps(content))


def test_who_says_how_pictures_are_prepared(tmp_path):
    """Beside the original's keys: open_clip's file, the notes, transformers' file. Beside
    transformers' keys: its own file, then the notes; open_clip's file is not looked at."""
    clip = {
        "model_cfg": {"vision_cfg": {"image_size": [32, 32]}},
        "preprocess_cfg": {"fill_color": 1},
    }
    theirs = {"crop_size": 32, "miniclip": {"fill": 3}}
    for layout in ("openai", "hf"):
        folder = tmp_path / layout
        target = folder if layout == "hf" else folder / "model.safetensors"
        save_checkpoint(state_of("vit"), VIT, target, layout)
        if layout == "openai":
            save_checkpoint(state_of("vit"), VIT, target, layout, {"fill": 2})
        checkpoint = open_checkpoint(folder)

        def fields(checkpoint=checkpoint, layout=layout):
            return readers.read_preprocessing(checkpoint, layout)

        assert fields() == ({} if layout == "hf" else {"fill": 2})
        write(folder, "preprocessor_config.json", **theirs)
        assert fields()["fill"] == (3 if layout == "hf" else 2)
        write(folder, "processor_config.json", image_processor={"miniclip": {"fill": 4}})
        assert fields()["fill"] == (4 if layout == "hf" else 2)
        write(folder, "processor_config.json", image_processor=None)
        write(folder, "open_clip_config.json", **clip)
        assert fields()["fill"] == (3 if layout == "hf" else 1)
    assert fields() == fields(open_checkpoint(tmp_path / "hf"), "hf")
    assert readers.said_by_open_clip(open_checkpoint(tmp_path / "openai")) == (
        f"{tmp_path / 'openai' / 'open_clip_config.json'}: preprocess_cfg",
        {"fill": 1, "size": 32},
    )
    (tmp_path / "openai" / "open_clip_config.json").rename(tmp_path / "openai" / "config.json")
    assert readers.said_by_open_clip(open_checkpoint(tmp_path / "openai"))[1]["fill"] == 1
    write(tmp_path / "openai", "config.json", preprocess_cfg={"size": 9}, model_cfg=None)
    assert readers.said_by_open_clip(open_checkpoint(tmp_path / "openai"))[1] == {"size": 9}
    write(tmp_path / "openai", "config.json", preprocess_cfg=None)
    assert readers.said_by_open_clip(open_checkpoint(tmp_path / "openai")) is None


def test_the_size_that_is_said_is_the_towers(tmp_path):
    path = save_checkpoint(
        state_of("vit"), VIT, tmp_path / "m.safetensors", preprocess={"size": 32}
    )
    assert Transform(**read_model(path).preprocessing).size == 32
    save_checkpoint(state_of("vit"), VIT, path, preprocess={"size": 40})
    assert said(read_model, path) == (
        f"{tmp_path}: the size that is said beside m.safetensors gives pictures of 40 pixels, but "
        "its tensors' shapes give 32"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"preprocess_cfg": 3}, "preprocess_cfg is int 3, expected an object"),
        ({"preprocess_cfg": {}, "model_cfg": 3}, "model_cfg is int 3, expected an object"),
        (
            {"preprocess_cfg": {}, "model_cfg": {"vision_cfg": [3]}},
            "vision_cfg is list [3], expected an object",
        ),
        (
            {"preprocess_cfg": {}, "model_cfg": {"vision_cfg": {"image_size": [3, 4]}}},
            "vision_cfg.image_size is list [3, 4], expected a square",
        ),
        (
            {"preprocess_cfg": {"fill_color": -1}},
            "preprocess_cfg: fill is int -1, expected 0 to 255",
        ),
    ],
)
def test_configurations_of_open_clip_that_are_none(content, message, tmp_path):
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    write(tmp_path, "open_clip_config.json", **content)
    checkpoint = open_checkpoint(tmp_path)
    path = tmp_path / "open_clip_config.json"
    assert said(readers.read_preprocessing, checkpoint, "openai") == f"{path}: {message}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("processor_config.json", {"image_processor": [1]},
         "image_processor: it is list [1], expected an object"),
        ("processor_config.json", {"image_processor": {"resample": 9}},
         "image_processor: resample is int 9, expected 2 (bilinear) or 3 (bicubic)"),
        ("preprocessor_config.json", {"resample": 9},
         "resample is int 9, expected 2 (bilinear) or 3 (bicubic)"),
        ("preprocessor_config.json", {"miniclip": {"fill": 256}}, "fill is int 256, expected 0 to "
                                                                  "255"),
    ],
)  # fmt: skip
def test_files_of_processors_are_named(name, content, message, tmp_path):
    save_file({"vision_model.x": torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    write(tmp_path, name, **content)
    for layout in ("openai", "hf"):
        told = said(readers.read_preprocessing, open_checkpoint(tmp_path), layout)
        assert told == f"{tmp_path / name}: {message}"
