"""Speed of one checkout beside another: `python docs/benchmarks/two_checkouts.py OLD NEW`.

Turn by turn, old and new each run in a fresh process that sees one checkout only and has its own
cache of compiled code: plans, passes of the numba backend, and what a start costs. Of every figure,
the medians, and of the ratios old / new within a round (above 1: the new one is faster) the median
and the quartiles. The first turn compiles and is reported as first use.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 7  # calls of one case in one process, of which the median counts


def child():
    """Prints one JSON object: milliseconds of every case, and of the imports."""
    start = time.perf_counter()
    import miniclip

    importing = time.perf_counter() - start
    found = {"import miniclip": importing * 1e3}
    start = time.perf_counter()
    for case, call in cases(miniclip):
        call()  # makes the plan; compiles or loads
        found[case] = statistics.median(seconds(call) for _ in range(REPEATS)) * 1e3
    found["whole process"] = (time.perf_counter() - start) * 1e3
    print(json.dumps(found))


def cases(miniclip):
    """Names and calls; only what both checkouts spell alike."""
    from miniclip.bench.inputs import living_state, pictures, token_ids
    from miniclip.models import CLIP, get_config
    from miniclip.pipeline import Pipeline

    for name in ("mini-vit", "mini-rn"):
        model = miniclip.load(name, backend="numba")
        x, ids = pictures(model.network.config, 32), token_ids(model.network.config, 32)
        yield f"{name} images 32, plan", lambda m=model, x=x: m.encode_image(x)
        yield f"{name} texts 32, plan", lambda m=model, ids=ids: m.encode_text(ids)
        yield f"{name} 32, backward pass", lambda n=model.network, x=x, ids=ids: step(n, x, ids)
    for name in ("ViT-B/32", "RN50"):
        network = CLIP(get_config(name), seed=None).to("numba")
        network.load_state_dict(living_state(network.config))
        model = Pipeline(network)
        for batch in (1, 8):
            x = pictures(network.config, batch)
            yield f"{name} images {batch}, plan", lambda m=model, x=x: m.encode_image(x)
        ids = token_ids(network.config, 8)
        yield f"{name} texts 8, plan", lambda m=model, ids=ids: m.encode_text(ids)
        x = pictures(network.config, 4)
        yield f"{name} 4, backward pass", lambda n=network, x=x, ids=ids: step(n, x, ids[:4])


def step(network, x, ids):
    """Forward in training mode, recorded, and backward: a training step but for AdamW."""
    network.train()
    with network.record():
        logits, _ = network(x, ids)
        network.backward(logits / logits.size)
    network.eval()


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def turn(checkout, cache):
    """The child's figures, in a process that imports the package from `checkout`."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "MINICLIP_CACHE_DIR": f"{cache}/ours"}
    environment["NUMBA_CACHE_DIR"] = f"{cache}/numba"  # checkouts from before our own cache
    command = [sys.executable, "-P", __file__, "child"]
    run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each checkout (default 7)")
    parser.add_argument("--json", action="store_true", help="print the times of all turns")
    asked = parser.parse_args()
    checkouts = {"old": asked.old.resolve(), "new": asked.new.resolve()}
    with tempfile.TemporaryDirectory() as caches:
        first = {name: turn(path, f"{caches}/{name}") for name, path in checkouts.items()}
        rounds = []
        for number in range(asked.rounds):  # who begins changes from round to round
            order = list(checkouts)[:: 1 if number % 2 else -1]
            rounds.append({n: turn(checkouts[n], f"{caches}/{n}") for n in order})
    if asked.json:
        print(json.dumps({"first": first, "rounds": rounds}))
        return
    old, new = (first[n]["whole process"] / 1e3 for n in ("old", "new"))
    print(f"the first process, which compiles: old {old:.1f} s, new {new:.1f} s")
    for case in rounds[0]["old"]:
        report(case, *([r[n][case] for r in rounds] for n in ("old", "new")))


def report(case, old, new):
    a, b = statistics.median(old), statistics.median(new)
    low, ratio, high = statistics.quantiles([x / y for x, y in zip(old, new, strict=True)], n=4)
    print(f"{case:32} {a:9.2f} {b:9.2f} ms   {ratio:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()
