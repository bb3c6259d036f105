"""What the models compute, written down before a change and compared after it.

    python docs/benchmarks/same_values.py write before/      # in the old checkout
    python docs/benchmarks/same_values.py compare before/    # in the new one, same machine

For mini-vit, mini-rn, and a ViT-B/32 and an RN50 with random weights: embeddings and the gradient
of every parameter by the modules on numpy and numba, the embeddings of the numba plans, and the
checkpoint after three training steps of both losses. `compare` prints, for every group of values,
whether all bits are the same, and otherwise the largest relative difference (of a tensor: largest
absolute difference over largest absolute value) and the tensor that has it. Where bits differ, the
biases of keys are left out: softmax does not feel them, so their gradient is zero but for rounding,
and AdamW, which divides by its size, makes whole steps of it. Bits depend on the processor, its
threads and the versions of NumPy and Numba: both commands belong on one machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import miniclip
from miniclip.bench.inputs import living_state, pictures, token_ids
from miniclip.models import CLIP, get_config
from miniclip.pipeline import Pipeline

SHIPPED = ("mini-vit", "mini-rn")
LARGE = ("ViT-B/32", "RN50")
BATCH = 3


def network_of(name, backend):
    if name in SHIPPED:
        return miniclip.load(name, backend).network
    network = CLIP(get_config(name), seed=None).to(backend)
    network.load_state_dict(living_state(network.config))
    return network


def by_modules(name, backend):
    """Embeddings and all gradients of one forward and backward pass."""
    network = network_of(name, backend)
    images, ids = pictures(network.config, BATCH), token_ids(network.config, BATCH)
    dlogits = np.random.default_rng(7).standard_normal((BATCH, BATCH)).astype(np.float32)
    values = {"images": network.encode_image(images), "texts": network.encode_text(ids)}
    with network.record():
        values["logits"], _ = network(images, ids)
        values["pixels.grad"], values["tokens.grad"] = network.backward(dlogits)
    values |= {f"{n}.grad": p.grad for n, p in network.named_parameters()}
    return values


def by_plan(name):
    """The embeddings that a loaded model gives on numba, which are its plans'."""
    network = network_of(name, "numba")
    model = Pipeline(network)
    images, ids = pictures(network.config, BATCH), token_ids(network.config, BATCH)
    values = {"images": model.encode_image(images), "texts": model.encode_text(ids)}
    one = {"image": model.encode_image(images[:1]), "text": model.encode_text(ids[:1])}
    return values | one


def by_training(preset, loss, backend, chunk=None):
    """The checkpoint after three steps."""
    with tempfile.TemporaryDirectory() as folder:
        out, toml = Path(folder) / "run", Path(folder) / "recipe.toml"
        toml.write_text(recipe(preset, loss, chunk))
        command = [sys.executable, "-m", "miniclip", "train", str(toml), "--out", str(out)]
        subprocess.run([*command, "--backend", backend], check=True, capture_output=True)
        lines = (out / "log.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        return load_file(out / "checkpoint.safetensors") | {"losses": np.array(losses)}


def recipe(preset, loss, chunk):
    vision = {
        "mini-vit": "image_resolution = 64\nlayers = 4\nwidth = 128\nheads = 4\npatch_size = 16\n"
        "stride = 8\n",
        "mini-rn": "image_resolution = 64\nlayers = [1, 1, 1, 1]\nwidth = 16\nheads = 8\n",
    }[preset]
    return (
        "vocabulary = 740\n[model]\nembed_dim = 128\n[model.vision]\n"
        + vision
        + "[model.text]\ncontext_length = 32\nwidth = 128\nheads = 4\nlayers = 2\n"
        f'[recipe]\nsteps = 3\nbatch = 32\nlearning_rate = 1e-3\nwarm_up = 2\nloss = "{loss}"\n'
        + (f"chunk = {chunk}\n" if chunk else "")
    )


def groups():
    """Every group of values by name, and how to compute it."""
    for name in (*SHIPPED, *LARGE):
        for backend in ("numpy", "numba"):
            yield f"{name} {backend} modules", lambda n=name, b=backend: by_modules(n, b)
        yield f"{name} plan", lambda n=name: by_plan(n)
    for preset in SHIPPED:
        for loss in ("contrastive", "sigmoid"):
            for backend in ("numpy", "numba"):
                key = f"{preset} {loss} {backend} training"
                yield key, lambda a=(preset, loss, backend): by_training(*a)
    yield (
        "mini-vit contrastive numba chunks training",
        lambda: by_training("mini-vit", "contrastive", "numba", 8),
    )


def felt_by_softmax(name, x):
    """True for every value of a tensor but those of key biases, which move all scores of a row."""
    felt = np.ones(x.shape, bool)
    if "k_proj.bias" in name:
        felt[:] = False
    if "in_proj_bias" in name:  # queries, keys, values
        felt[len(x) // 3 : 2 * len(x) // 3] = False
    return felt


def difference(old, new):
    """Largest relative difference of two dictionaries of tensors, and the name that has it."""
    worst, which = 0.0, ""
    for name, x in old.items():
        y = new[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            return np.inf, f"{name}: {x.dtype}{x.shape}, now {y.dtype}{y.shape}"
        if not np.array_equal(x, y, equal_nan=True):
            felt = felt_by_softmax(name, x)
            apart = np.abs(x.astype(np.float64) - y)[felt].max(initial=0)
            apart /= max(float(np.abs(x[felt]).max(initial=0)), 1e-300)
            if apart > worst:
                worst, which = apart, name
    return worst, which


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("write", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="groups whose name contains this")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON")
    asked = parser.parse_args()
    found = {}
    for key, compute in groups():
        if asked.only not in key:
            continue
        path = asked.folder / (key.replace("/", "-").replace(" ", "_") + ".safetensors")
        values = {n: np.array(x, order="C") for n, x in compute().items() if x is not None}
        if asked.what == "write":
            asked.folder.mkdir(parents=True, exist_ok=True)
            save_file(values, path)
            print(f"wrote {key}: {len(values)} tensors", flush=True)
            continue
        old = load_file(path)
        missing = sorted(set(old) ^ set(values))
        worst, which = difference({n: x for n, x in old.items() if n in values}, values)
        found[key] = {"relative": worst, "tensor": which, "only_in_one": missing}
        if not asked.json:
            verdict = "the same bits" if worst == 0 else f"{worst:.1e} in {which}"
            print(
                f"{key}: {verdict}" + (f"; in one alone: {missing}" if missing else ""), flush=True
            )
    if asked.json and asked.what == "compare":
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
