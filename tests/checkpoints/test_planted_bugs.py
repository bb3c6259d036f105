"""Planted bugs in reading and writing checkpoints: the checks find each of them."""

import importlib

import checkpoint_checks
import pytest
from planting import is_caught, planted_package

from miniclip.check import Bug, unchanged

LAYOUTS, READER, HEADER = (
    "checkpoints.layouts",
    "checkpoints.reader",
    "checkpoints.safetensors_header",
)
CONFIGS, TRANSFORMERS, OPEN_CLIP = (
    "checkpoints.configs",
    "checkpoints.transformers_config",
    "checkpoints.open_clip_config",
)
JSON, NOTES, WRITER = "checkpoints.json_files", "checkpoints.notes", "checkpoints.writer"

BUGS = [
    Bug("q and k swapped", "transformers", LAYOUTS, "self_attn.q_proj.{n} self_attn.k_proj.{n}", "self_attn.k_proj.{n} self_attn.q_proj.{n}"),
    Bug("both LayerNorms swapped", "transformers", LAYOUTS, '"ln_1.{n}": "layer_norm1.{n}",\n    "ln_2.{n}": "layer_norm2.{n}"', '"ln_1.{n}": "layer_norm2.{n}",\n    "ln_2.{n}": "layer_norm1.{n}"'),
    Bug("projection not transposed", "transformers", LAYOUTS, "return array.T if layout", "return array.reshape(array.shape[::-1]) if layout"),
    Bug("projection of another layout transposed", "original", LAYOUTS, "return array.T if layout == \"hf\" and name in TRANSPOSED", "return array.T.reshape(array.shape) if name in TRANSPOSED"),
    Bug("mended pre_layernorm missed", "other_spelling", LAYOUTS, 'key.replace("pre_layernorm.", "pre_layrnorm.")', "key"),
    Bug("counters of batches kept", "original", LAYOUTS, 'DROPPED = ("num_batches_tracked", ', "DROPPED = ("),
    Bug("missing tensors accepted", "missing", LAYOUTS, "        if name not in key_map:", "        if False:"),
    Bug("unmatched keys accepted", "missing", LAYOUTS, "        if key not in used:", "        if False:"),
    Bug("BF16 shifted by a byte", "halves", READER, "wide <<= 16", "wide <<= 8"),
    Bug("F16 kept as it is", "halves", READER, "return raw.astype(np.float32)", "return raw"),
    Bug("BF16 taken for F16", "halves_joined", READER, "return widen_bfloat16(raw)", 'return raw.view("<f2").astype(np.float32)'),
    Bug("mapped for reading only", "copy_on_write", READER, 'mode="c"', 'mode="r"'),
    Bug("read into memory", "copy_on_write", READER, "return raw if raw.flags.aligned else raw.copy()", "return raw.copy()"),
    Bug("index may leave its folder", "index", READER, 'any(sign in name for sign in "/\\\\:\\0")', "False"),
    Bug("key in the wrong shard accepted", "index", READER, "if key not in files[name].entries:", "if False:"),
    Bug("holes accepted", "broken", HEADER, "if entry.begin != at:", "if entry.begin < at:"),
    Bug("overlaps accepted", "broken", HEADER, "if entry.begin != at:", "if entry.begin > at:"),
    Bug("end of the file not checked", "broken", HEADER, "if entry.end > available:", "if False:"),
    Bug("bytes left over accepted", "broken", HEADER, "if at != available:", "if at > available:"),
    Bug("size not checked against shape", "broken", HEADER, "if offsets[1] - offsets[0] != expected:", "if False:"),
    Bug("sizes in 64 bits, which wrap", "broken", HEADER, "math.prod(shape) * ITEM_BYTES[dtype]", "math.prod(shape) * ITEM_BYTES[dtype] % 2**64"),
    Bug("duplicate keys accepted", "broken", JSON, "if key in result:", "if False:"),
    Bug("header's length believed", "broken", HEADER, "if length > min(size - 8, MAX_JSON):", "if False:"),
    Bug("end-of-text rule of old files forgotten", "transformers", TRANSFORMERS, "None if end == LEGACY_END else end", "end"),
    Bug("end-of-text id ignored", "transformers", TRANSFORMERS, "None if end == LEGACY_END else end", "None"),
    Bug("tanh GELU taken for GELU", "transformers", TRANSFORMERS, '"gelu_new": "gelu_tanh"', '"gelu_new": "gelu"'),
    Bug("eps ignored", "transformers", TRANSFORMERS, '    "layer_norm_eps": "eps",\n', ""),
    Bug("quick_gelu turned round", "open_clip", OPEN_CLIP, '"quick_gelu" if quick else "gelu"', '"gelu" if quick else "quick_gelu"'),
    Bug("open_clip without a flag taken for QuickGELU", "open_clip", OPEN_CLIP, '"text.activation": "gelu",\n    "text.heads": 8,\n    "text.eps": 1e-5,\n    "text.end_id": None', '"text.activation": "quick_gelu",\n    "text.heads": 8,\n    "text.eps": 1e-5,\n    "text.end_id": None'),
    Bug("the known name outranks the file", "open_clip", LAYOUTS, "return [Source(name, claims), *sources, known, rest]", "return [known, Source(name, claims), *sources, rest]"),
    Bug("disagreement ignored", "disagreement", CONFIGS, "if claimed != found:", "if False:"),
    Bug("heads of the attention pool from the stem's width", "original", CONFIGS, "width = 32 * seen.width if seen.is_resnet else seen.width", "width = seen.width * 8"),
    Bug("heads always of width 64", "beside_a_hub_file", CONFIGS, 'if f"{tower}.heads" in source.claims:', 'if f"{tower}.head" in source.claims:'),
    Bug("activation not written", "writer", NOTES, "name: None if tower is None else vars(tower)", "name: None"),
    Bug("tensors written as they lie", "writer_hf", WRITER, 'np.ascontiguousarray(array, "<f4").data', 'array.astype("<f4").tobytes("A")'),
    Bug("header not padded", "copy_on_write", WRITER, 'b" " * (-len(data) % 8)', 'b" " * (-len(data) % 8 + 1)'),
]  # fmt: skip


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_found(bug, tmp_path):
    with planted_package(bug, tmp_path) as package:
        importlib.import_module("miniclip.checkpoints")
        check = checkpoint_checks.CHECKS[bug.where]
        assert is_caught(lambda: check(package), also=(TypeError,)), f"not found: {bug.name}"


def test_without_a_bug_nothing_is_found(tmp_path):
    """The control: the same copying and importing, nothing planted."""
    with planted_package(unchanged(READER), tmp_path) as package:
        importlib.import_module("miniclip.checkpoints")
        assert str(tmp_path) in package.checkpoints.__file__
        for check in checkpoint_checks.CHECKS.values():
            check(package)


def test_there_are_enough():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 30
