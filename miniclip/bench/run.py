"""What `miniclip bench` does: check everything that can be wrong, measure, print, keep."""

from __future__ import annotations

import gc
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from miniclip.bench import memory, peers, training
from miniclip.bench.flops import image_flops, text_flops
from miniclip.bench.inputs import pictures, token_ids
from miniclip.bench.measure import Limits, Subject, check_outputs, interleave, warm_up, with_repeats
from miniclip.bench.report import Case, case_record, case_text, head_text, new_record
from miniclip.bench.subjects import (
    OURS,
    ceiling_subject,
    check_model,
    load_weights,
    make_pipeline,
    our_subjects,
)
from miniclip.bench.threads import blas_limits, cores, limited
from miniclip.files import write_bytes
from miniclip.models import OPENAI_CONFIGS, CLIPConfig
from miniclip.ops.array import Array

KINDS = ("inference", "training", "memory")
TOWERS = ("image", "text")
MODELS = {
    "inference": ("ViT-B/32", "RN50"),
    "training": ("mini-vit", "mini-rn", "ViT-B/32"),
    "memory": ("ViT-B/32",),
}
BATCHES = {"inference": (1, 8, 32), "training": (16,), "memory": (32,)}


@dataclass(frozen=True)
class Options:
    """What was asked for. Empty models and batches: those that suit the kind.

    kind: "inference", "training" or "memory". ours: which of "plan", "numba", "numpy"; None: all.
    threads: None: as many as cores. pictures: of the long run of memory. file: where the record
    goes. activation: for a file without a configuration.
    """

    kind: str = "inference"
    models: Sequence[str] = ()
    batches: Sequence[int] = ()
    towers: Sequence[str] = TOWERS
    against: Sequence[str] = ()
    ours: Sequence[str] | None = None
    threads: int | None = None
    pictures: int = 256
    file: Path | None = None
    activation: str | None = None
    limits: Limits = field(default_factory=Limits)


def bench(options: Options, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure what the options ask for; tables go to `report` one by one, the record comes back.

    Raises ValueError naming the wrong argument, ImportError for a library that is not installed,
    before anything is measured; ValueError naming the subject that computes something else.
    """
    options = checked(options)
    threads = options.threads or cores()
    record = new_record(options.kind, threads, options.limits.pause)
    report(head_text(record))
    if options.kind == "memory":
        measure_memory(options, threads, record, report)
    else:
        measure_times(options, threads, record, report)
    if options.file is not None:
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        write_bytes({options.file: text.encode("utf-8")})
    return record


def measure_times(
    options: Options, threads: int, record: dict[str, Any], report: Callable[[str], None]
) -> None:
    """Case by case into the record."""
    torch = peers.need("torch") if options.against else None
    make_cases = training_cases if options.kind == "training" else inference_cases
    with limited(threads, torch):
        for case in make_cases(options, threads):
            report(f"\n{case_text(case)}")
            record["cases"].append(case_record(case))
            gc.collect()


def measure_memory(
    options: Options, threads: int, record: dict[str, Any], report: Callable[[str], None]
) -> None:
    """Each job in a process of its own, which loads the weights from a file, as users do."""
    memory.own_memory()  # says so where the system does not report it
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            asked = memory.jobs(
                on_disk(model, Path(folder)),
                options.batches,
                options.pictures,
                "torch" in options.against,
                threads,
                options.activation,
            )
            rows = [(job, memory.measure(job)) for job in asked]
        rows = [(replace(job, model=model), peak) for job, peak in rows]
        report(f"\n{memory.table(rows)}")
        record["cases"] += [memory.record(job, peak) for job, peak in rows]


def on_disk(model: str, folder: Path) -> str:
    """The model itself, or random weights of that name in a file in this folder."""
    if model not in OPENAI_CONFIGS:
        return model
    config, state, _ = load_weights(model)
    make_pipeline(config, state, "numpy").save(folder / "random.safetensors")
    return str(folder / "random.safetensors")


# ------------------------------------------------------------------------ cases


def inference_cases(options: Options, threads: int) -> Iterator[Case]:
    """Every model, tower and batch."""
    names = [name for name in OURS if options.ours is None or name in options.ours]
    for model in options.models:
        config, state, weights = load_weights(model, options.activation)
        backends = {"numba" if name == "plan" else name for name in names}
        pipelines = {name: make_pipeline(config, state, name) for name in backends}
        for tower in options.towers:
            flops = image_flops(config) if tower == "image" else text_flops(config)
            for batch in options.batches:
                x = make_input(config, tower, batch)
                ours = our_subjects(names, pipelines, tower, x)
                theirs = peer_subjects(options.against, config, state, tower, x, threads)
                subjects = [*ours, *theirs]
                # the last of ours is the plainest: whoever differs from it is the one to blame
                errors = check_outputs(warm_up(subjects), ours[-1].name)
                times = take_times(subjects, options.limits)
                flops_of_all, first = batch * flops, (ours[0].name,)
                yield Case(model, weights, tower, batch, flops_of_all, first, times, errors)


def make_input(config: CLIPConfig, tower: str, batch: int) -> Array:
    return pictures(config, batch) if tower == "image" else token_ids(config, batch)


def peer_subjects(
    against: Sequence[str],
    config: CLIPConfig,
    state: dict[str, Array],
    tower: str,
    x: Array,
    threads: int,
) -> list[Subject]:
    found: list[Subject] = []
    if "torch" in against:
        found += peers.torch_subjects(config, state, tower, x)
    if "onnxruntime" in against:
        found.append(peers.onnxruntime_subject(config, state, tower, x, threads))
    return found


def training_cases(options: Options, threads: int) -> Iterator[Case]:
    """Every model and batch, always from random weights."""
    for model in options.models:
        config, state = training.load(model, options.activation)
        flops = training.training_flops(config)
        for batch in options.batches:
            subjects = training.our_training(config, state, batch)
            if "torch" in options.against:
                subjects += training.torch_training(config, state, batch)
            errors = training.check_losses(subjects)
            times = take_times(subjects, options.limits)
            ours = ("numba", training.FULL)
            yield Case(model, "random", "training", batch, batch * flops, ours, times, errors)


def take_times(subjects: Sequence[Subject], limits: Limits) -> dict[str, list[float]]:
    """Seconds by subject, and the ceiling's in every round."""
    everybody = [*subjects, ceiling_subject()]
    return interleave([with_repeats(subject, limits) for subject in everybody], limits)


# ------------------------------------------------------------------------ checks


def checked(options: Options) -> Options:
    """The options with defaults filled in. Raises ValueError or ImportError before any work."""
    blas_limits()
    check_choices("kind", [options.kind], KINDS)
    models = options.models or MODELS[options.kind]
    batches = options.batches or BATCHES[options.kind]
    for name in models:
        check_model(name)
    check_choices("towers", options.towers, TOWERS)
    check_choices("ours", options.ours or (), OURS)
    check_against(options)
    for batch in batches:
        at_least("batches", batch, 2 if options.kind == "training" else 1)
    check_numbers(options)
    check_file(options.file)
    return Options(**{**vars(options), "models": models, "batches": batches})


def check_choices(argument: str, values: Sequence[str], choices: Sequence[str]) -> None:
    for value in values:
        if value not in choices:
            raise ValueError(f"{argument}: got {value!r}, expected one of {', '.join(choices)}")


def check_against(options: Options) -> None:
    peers.check_peers(options.against)
    if "onnxruntime" in options.against and options.kind != "inference":
        raise ValueError(
            f"against: got onnxruntime for {options.kind}, expected torch, the only peer there"
        )


def check_file(file: Path | None) -> None:
    """Whether the record can be kept there is asked before it is measured."""
    if file is None:
        return
    if file.is_dir():
        raise ValueError(f"json: {file} is a folder, expected a file")
    if not file.parent.is_dir():
        raise ValueError(f"json: there is no folder {file.parent}, expected one to write in")


def at_least(argument: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{argument}: got {value}, expected at least {least}")


def check_numbers(options: Options) -> None:
    limits = options.limits
    if limits.rounds is not None:
        at_least("rounds", limits.rounds, 1)
    for name, seconds in (("seconds", limits.seconds), ("pause", limits.pause)):
        at_least(name, seconds, 0)
        if seconds == math.inf:
            raise ValueError(f"{name}: got {seconds}, expected a finite number")
    at_least("pictures", options.pictures, 1)
    if options.threads is not None:
        at_least("threads", options.threads, 1)
