"""Mutated checkpoints: each is loaded to the same shapes, or refused with one CheckpointError.

    python tests/support/fuzz_safetensors.py --count 20000 --seed 0

Small valid checkpoints (the original's keys with a note, open_clip's folder, Hugging Face's folder,
a sharded folder) are damaged in bytes, lengths, and every field of their JSON. Anything else that
comes out - another exception, other shapes, more than a gigabyte, more than ten seconds - stops the
run and keeps the files. A value that is no longer finite is found by `check_finite`.
"""

import argparse
import collections
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from miniclip.checkpoints import CheckpointError, check_finite, read_model, save_checkpoint
from miniclip.checkpoints.writer import write_safetensors
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig

TINY = CLIPConfig(
    4,
    VisionConfig(8, 1, 8, 2, patch_size=4, activation="gelu"),
    TextConfig(5, 12, 8, 2, 1, activation="gelu"),
)
SECONDS = 10
BYTES = 2**30
WORDS = ("F32", "F16", "BF16", "I64", "F64", "gelu", "quick_gelu", "clip", "", "visual.proj", "..")
NUMBERS = (0, 1, -1, 2, 3, 7, 8, 255, 2**31, 2**32, 2**53, 2**63 - 1, 2**64, -(2**63), 1e300, 0.5)


def make_bases(place):
    """Valid checkpoints: name -> what to load. Their folders hold nothing else."""
    state = CLIP(TINY, seed=0).state_dict()
    bases = {name: place / name for name in ("openai", "open_clip", "hf", "shards")}
    for path in bases.values():
        path.mkdir(parents=True)
    save_checkpoint(state, TINY, bases["openai"] / "model.safetensors")
    save_checkpoint(state, TINY, bases["hf"], layout="hf", preprocess={"size": 8})
    with open(bases["open_clip"] / "open_clip_model.safetensors", "wb") as file:
        write_safetensors(file, state, {})
    (bases["open_clip"] / "open_clip_config.json").write_text(json.dumps(open_clip_config()))
    split_into_shards(bases["hf"], bases["shards"])
    return bases


def open_clip_config():
    vision, text = TINY.vision, TINY.text
    sizes = {"layers": 1, "width": 8, "head_width": 4, "patch_size": 4, "image_size": 8}
    texts = {"layers": 1, "width": 8, "heads": 2, "context_length": 5, "vocab_size": 12}
    assert (vision.width, text.width) == (8, 8)
    model = {"embed_dim": 4, "quick_gelu": False, "vision_cfg": sizes, "text_cfg": texts}
    return {"model_cfg": model, "preprocess_cfg": {"mean": [0, 0, 0], "size": 8}}


def split_into_shards(source, target):
    header, data = parse((source / "model.safetensors").read_bytes())
    header.pop("__metadata__")
    weight_map = {}
    for number, keys in enumerate(np.array_split(list(header), 3)):
        name = f"model-{number}.safetensors"
        tensors = {
            key: np.frombuffer(data[slice(*header[key]["data_offsets"])], "<f4").reshape(
                header[key]["shape"]
            )
            for key in keys.tolist()
        }
        with open(target / name, "wb") as file:
            write_safetensors(file, tensors, {})
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": len(data)}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(source / "config.json", target)


def parse(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


# ---------------------------------------------------------------- mutations


def mutate(rng, name, content):
    """Damaged bytes of one file; the first word says how."""
    ways = [flip_bytes, truncate, insert, remove, edit_json]
    if name.endswith(".safetensors"):
        ways += [edit_header, edit_header, edit_entry, edit_entry, edit_entry, change_length]
        ways += [swap_keys, flip_in_header, flip_in_data]
    way = rng.choice(ways)
    return way.__name__, way(rng, content)


def flip_bytes(rng, content, begin=0, end=None):
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if damaged:
            damaged[rng.randrange(begin, end or len(damaged))] = rng.choice(
                (0, 0xFF, 0x7F, 0x80, rng.randrange(256))
            )
    return bytes(damaged)


def flip_in_header(rng, content):
    return flip_bytes(rng, content, 0, 8 + int.from_bytes(content[:8], "little"))


def flip_in_data(rng, content):
    return flip_bytes(rng, content, 8 + int.from_bytes(content[:8], "little"))


def truncate(rng, content):
    return content[: rng.choice((0, 1, 7, 8, 9, rng.randrange(len(content)), len(content) - 1))]


def insert(rng, content):
    at = rng.choice((0, 8, len(content), rng.randrange(len(content))))
    return content[:at] + rng.randbytes(rng.choice((1, 4, 8, 100))) + content[at:]


def remove(rng, content):
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.choice((1, 4, 8, 100)) :]


def change_length(rng, content):
    length = rng.choice((0, 1, 2**16, 2**31, 2**63, 2**64 - 1, len(content), rng.getrandbits(64)))
    if rng.random() < 0.3:
        length = max(int.from_bytes(content[:8], "little") + rng.choice((-8, -1, 1, 8)), 0)
    return length.to_bytes(8, "little") + content[8:]


def pack(header, data):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def edit_entry(rng, content):
    """One field of one tensor."""
    header, data = parse(content)
    entry = header[rng.choice([key for key in header if key != "__metadata__"])]
    field = rng.choice(("dtype", "shape", "data_offsets"))
    if rng.random() < 0.2:
        entry[field] = any_value(rng)
    elif field == "dtype":
        entry[field] = rng.choice(WORDS)
    elif entry[field]:
        entry[field][rng.randrange(len(entry[field]))] = rng.choice(NUMBERS)
    if rng.random() < 0.1:
        entry[field] = [*entry[field], 1] if isinstance(entry[field], list) else entry[field]
    return pack(header, data)


def swap_keys(rng, content):
    """Two tensors change names, or one takes another's."""
    header, data = parse(content)
    one, two = rng.sample([key for key in header if key != "__metadata__"], 2)
    if rng.random() < 0.5:
        header[one], header[two] = header[two], header[one]
    else:
        header[rng.choice((one + "x", "visual." + one, one[1:], "é", "__metadata__"))] = header.pop(
            one
        )
    return pack(header, data)


def edit_header(rng, content):
    header, data = parse(content)
    edit_somewhere(rng, header)
    return pack(header, data)


def edit_json(rng, content):
    """A configuration or an index (for a file of tensors: its header)."""
    try:
        parsed = json.loads(content)
    except ValueError:
        return edit_header(rng, content)
    edit_somewhere(rng, parsed)
    return json.dumps(parsed).encode()


def edit_somewhere(rng, value):
    """Walk down to some object or list, and change, drop or add one of its members."""
    while True:
        members = list(value) if isinstance(value, dict) else range(len(value))
        if not members:
            return
        at = rng.choice(members)
        if isinstance(value[at], dict | list) and value[at] and rng.random() < 0.8:
            value = value[at]
            continue
        way = rng.random()
        if way < 0.6:
            value[at] = any_value(rng)
        elif way < 0.8:
            del value[at]
        elif isinstance(value, dict):
            value[rng.choice((*WORDS, str(at) + "_"))] = value[at]
        return


def any_value(rng):
    return rng.choice(
        (*NUMBERS, *WORDS, None, True, False, [], {}, [1], [4, 4], {"a": 1}, "x" * 999)
    )


# ---------------------------------------------------------------- judging


def judge(path, expected):
    """ "same", "not finite" or "refused"; AssertionError for anything else."""
    try:
        loaded = read_model(path)
        check_finite(loaded)
    except CheckpointError as error:
        if str(path) not in str(error):
            raise AssertionError(f"the message does not name the file: {error}") from error
        return "not finite" if "not finite" in str(error) else "refused"
    shapes = {name: x.shape for name, x in loaded.state.items()}
    assert shapes == expected, "other shapes came out"
    return "same"


def on_alarm(number, frame):
    raise AssertionError(f"took more than {SECONDS} seconds")


def fuzz(count, seed, place):
    """Outcome -> how often. At the first fault AssertionError; the damaged files stay."""
    shutil.rmtree(place, ignore_errors=True)
    bases = make_bases(place / "bases")
    expected = {name: x.shape for name, x in CLIP(TINY, seed=None).state_dict().items()}
    for base in bases.values():
        assert judge(base, expected) == "same"
    files = {base: {p.name: p.read_bytes() for p in base.iterdir()} for base in bases.values()}
    counts, slowest = collections.Counter(), 0.0
    signal.signal(signal.SIGALRM, on_alarm)
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        base = rng.choice(list(bases.values()))
        target = place / "damaged"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(base, target)
        name = rng.choice(sorted(files[base]))
        way, damaged = mutate(rng, name, files[base][name])
        (target / name).write_bytes(damaged)
        signal.alarm(SECONDS)
        started = time.perf_counter()
        try:
            counts[judge(target, expected)] += 1
        except BaseException:
            print(
                f"number {number}: {way} of {base.name}/{name}, kept in {target}", file=sys.stderr
            )
            raise
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - started)
    fuzz.slowest = slowest
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    limit_memory()
    place = Path(tempfile.mkdtemp(prefix="fuzz-safetensors-"))
    started = time.perf_counter()
    counts = fuzz(arguments.count, arguments.seed, place)
    print(f"{arguments.count} mutated checkpoints, seed {arguments.seed}:")
    for outcome in ("same", "not finite", "refused"):
        print(f"  {outcome}: {counts[outcome]}")
    print(f"  slowest: {fuzz.slowest:.3f} s; all: {time.perf_counter() - started:.0f} s")
    shutil.rmtree(place)


def limit_memory():
    """An allocation of more than BYTES beyond what is in use now raises MemoryError."""
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
