"""Small checkpoints written by those who write the real ones, and files broken on purpose."""

import functools
import json
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from model_checks import RESNET, VIT
from original import (
    living_state,
    load_into_original,
    original_clip,
    pictures,
    texts,
    transformers_clip,
)
from safetensors.torch import save_file

CONFIGS = {"vit": VIT, "resnet": RESNET}
END = 40  # an end-of-text id that is not the largest: first match and largest id then differ


@functools.cache
def workplace():
    """A folder that lives as long as the tests."""
    keep = tempfile.TemporaryDirectory(prefix="miniclip-checkpoints-")
    return keep, Path(keep.name)


def folder(name):
    path = workplace()[1] / name
    path.mkdir(exist_ok=True)
    return path


def state_of(kind):
    return living_state(CONFIGS[kind], 1)


def inputs_of(kind):
    """Pictures and texts; in the texts larger ids than END stand before the first END."""
    ids = texts(CONFIGS[kind], 3, 1)
    ids[:, 2] = END
    ids[:, 1] = END + 3
    return pictures(CONFIGS[kind], 2, 1), ids


@functools.cache
def original(kind):
    """The original with a living state, in float32."""
    model = original_clip(CONFIGS[kind], torch.float32)
    load_into_original(model, state_of(kind))
    return model


@functools.cache
def original_file(kind):
    """Its state_dict, written by the safetensors library: a bare file, with no configuration."""
    path = folder(f"original-{kind}") / "model.safetensors"
    scalars = {"input_resolution": 32, "context_length": 9, "vocab_size": 50}  # as OpenAI's have
    extra = {name: torch.tensor(value) for name, value in scalars.items()}
    save_file({**original(kind).state_dict(), **extra}, path)
    return path


def ask_original(kind):
    images, ids = (torch.tensor(x) for x in inputs_of(kind))
    with torch.no_grad():
        model = original(kind)
        return model.encode_image(images).numpy(), model.encode_text(ids).numpy()


@functools.cache
def transformers_folder(activation="quick_gelu", end=2, shards=False, eps=1e-5):
    """A folder that transformers wrote, and the embeddings of the model that it holds."""
    model = transformers_clip(VIT, state_of("vit"))
    for tower in (model.config.vision_config, model.config.text_config):
        tower.hidden_act, tower.layer_norm_eps = activation, eps
    model.config.text_config.eos_token_id = end
    weights = model.state_dict()
    model = type(model)(model.config).eval()  # anew, because modules read it when they are made
    model.load_state_dict(weights)
    path = folder(f"hf-{activation}-{end}-{shards}-{eps}")
    model.save_pretrained(path, **({"max_shard_size": "200KB"} if shards else {}))
    return path, ask_transformers(model, *inputs_of("vit"))


def ask_transformers(model, images, ids):
    with torch.no_grad():
        image = model.vision_model(pixel_values=torch.tensor(images)).pooler_output
        text = model.text_model(input_ids=torch.tensor(ids)).pooler_output
        return model.visual_projection(image).numpy(), model.text_projection(text).numpy()


# ---------------------------------------------------------------- files by hand


def pack(header, data=b""):
    """A safetensors file from a header (an object, or its bytes) and the tensors' bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin=0, end=8, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD = pack({"a": tensor(), "b": tensor(8, 16)}, bytes(16))
# name -> (content, what the error must say); the file's name must always be in it.
BROKEN = {
    "empty": (b"", "is empty"),
    "seven bytes": (GOOD[:7], "7 bytes, expected at least 9"),
    "length alone": (GOOD[:8], "8 bytes, expected at least 9"),
    "header cut": (GOOD[:40], "truncated"),
    "data cut": (GOOD[:-1], "'b' ends at byte 16 of the data, expected at most 15"),
    "no data": (pack({"a": tensor()}), "'a' ends at byte 8"),
    "length zero": (bytes(16), "JSON is not valid"),
    "length huge": (b"\xff" * 8 + GOOD[8:], "18446744073709551615 bytes, expected at most"),
    "length over the file": (struct.pack("<Q", len(GOOD)) + GOOD[8:], "expected at most"),
    "not JSON": (pack(b"{'a': 1}"), "JSON is not valid"),
    "not UTF-8": (pack(b'{"\xff\xfe": 1}'), "JSON is not valid"),
    "not an object": (pack([1, 2]), "expected an object"),
    "NaN in it": (pack(b'{"a": NaN}'), "NaN is no JSON number"),
    "deep": (pack(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "JSON is not valid"),
    "a number of 5000 digits": (pack(b'{"a": ' + b"9" * 5000 + b"}"), "JSON is not valid"),
    "key twice": (
        pack(b'{"a":%b,"a":%b}' % ((json.dumps(tensor()).encode(),) * 2), bytes(8)),
        "'a' occurs twice",
    ),
    "entry no object": (pack({"a": 3}), "'a' is int 3, expected an object"),
    "entry without dtype": (pack({"a": {"shape": [], "data_offsets": [0, 0]}}), "'a' is dict"),
    "unknown dtype": (pack({"a": tensor(dtype="F7")}, bytes(8)), "'a' has dtype str 'F7'"),
    "dtype a list": (pack({"a": tensor(dtype=[])}, bytes(8)), "'a' has dtype list"),
    "negative size": (pack({"a": tensor(shape=[-2])}, bytes(8)), "'a' has shape"),
    "broken size": (pack({"a": tensor(shape=[2.0])}, bytes(8)), "'a' has shape"),
    "size true": (pack({"a": tensor(0, 4, [True])}, bytes(4)), "'a' has shape"),
    "shape a number": (pack({"a": tensor() | {"shape": 2}}, bytes(8)), "'a' has shape int 2"),
    "too many dimensions": (pack({"a": tensor(shape=[1] * 9)}, bytes(8)), "at most 8 sizes"),
    "size beyond 64 bits": (pack({"a": tensor(shape=[2**63, 0])}, bytes(8)), "'a' has shape"),
    "product beyond 64 bits": (pack({"a": tensor(shape=[2**40] * 8)}, bytes(8)), "8 bytes, exp"),
    "product that is 8 bytes in 64 bits": (
        pack({"a": tensor(0, 8, [2, 3, (2**61 + 1) // 3])}, bytes(8)),
        "'a' has 8 bytes, expected",
    ),
    "shape too small": (pack({"a": tensor(shape=[1])}, bytes(8)), "8 bytes, expected 4 for F32"),
    "shape too large": (pack({"a": tensor(shape=[3])}, bytes(8)), "8 bytes, expected 12 for F32"),
    "dtype too wide": (pack({"a": tensor(dtype="F64")}, bytes(8)), "expected 16 for F64"),
    "negative offset": (pack({"a": tensor(-8, 0)}, bytes(8)), "'a' has data_offsets"),
    "offsets the wrong way": (pack({"a": tensor(8, 0)}, bytes(8)), "begin <= end"),
    "one offset": (pack({"a": tensor() | {"data_offsets": [8]}}, bytes(8)), "data_offsets"),
    "offsets a text": (pack({"a": tensor() | {"data_offsets": "08"}}, bytes(8)), "data_offsets"),
    "beyond the file": (pack({"a": tensor(8, 16)}, bytes(8)), "'a' ends at byte 16"),
    "overlap": (
        pack({"a": tensor(), "b": tensor(4, 12)}, bytes(12)),
        "'b' begins at byte 4 of the data and overlaps 'a', expected 8",
    ),
    "twice the same bytes": (pack({"a": tensor(), "b": tensor()}, bytes(8)), "'b' begins"),
    "hole": (
        pack({"a": tensor(), "b": tensor(12, 20)}, bytes(20)),
        "leaves a hole after 'a', expected 8",
    ),
    "hole at the start": (pack({"a": tensor(8, 16)}, bytes(16)), "a hole after the header"),
    "bytes left over": (GOOD + b"\0", "17 bytes of data, expected 16"),
    "notes no texts": (pack({"__metadata__": {"a": 1}}), "expected an object of strings"),
    "a zip": (b"PK\x03\x04" + bytes(100), "is a pickle (a PyTorch file): a pickle can run code"),
    "a pickle": (b"\x80\x02}q\x00." + bytes(100), "from safetensors.torch import save_file"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
}


def hf_config(config):
    """A config.json by hand, as far as loading asks."""
    towers = {}
    for name, tower in (("vision", config.vision), ("text", config.text)):
        towers[f"{name}_config"] = {
            "hidden_size": tower.width,
            "num_attention_heads": tower.heads,
            "hidden_act": tower.activation,
        }
    towers["text_config"]["eos_token_id"] = 2
    return {"model_type": "clip", "projection_dim": config.embed_dim, **towers}


def open_clip_config(config, **model):
    """An open_clip_config.json for a configuration."""
    vision, text = config.vision, config.text
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "vision_cfg": {
                "image_size": vision.image_resolution,
                "layers": vision.layers,
                "width": vision.width,
                "patch_size": vision.patch_size,
            },
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
            },
            **model,
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def with_activation(config, activation):
    return replace(
        config,
        vision=replace(config.vision, activation=activation),
        text=replace(config.text, activation=activation),
    )
