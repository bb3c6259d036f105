"""`miniclip train`: from a preset, a configuration file or a checkpoint to a trained model.

The loop itself is in `miniclip.training`; here its parts are put together: which network, which
words, which pictures, and where the result goes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miniclip import backends
from miniclip.files import as_path
from miniclip.inputs.bpe import train_merges
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP
from miniclip.pipeline import Knowledge, Pipeline, load
from miniclip.tasks.settings import DataSettings, Settings, read_settings
from miniclip.training.augmented import (
    Apply,
    AugmentedData,
    OneOfEachLabel,
    apply_all,
    by_label,
)
from miniclip.training.data import Dataset, SceneData
from miniclip.training.held_out import SHARE
from miniclip.training.loop import STATE, Trainer
from miniclip.training.pictures import PictureData, read_pictures
from miniclip.training.state import StateError
from miniclip.training.store import stored
from miniclip.training.table_rows import Row
from miniclip.world.scenes import TRAINING_WORLD, World

MODEL = "model.safetensors"
SNAPSHOTS = "snapshots"
SCENES_IN_WORDS = "drawings of coloured shapes, named in English and Chinese"
VOCABULARY_SCENES = 12_000  # whose captions the vocabulary of scenes is learned from
SIDE = 1.25  # of decoded squares, in sides of what the network takes
WORDINGS = 5  # captions of each named picture that a vocabulary is learned from
Report = Callable[[str], None]

# ------------------------------------------------------------------------ parts


def scene_words(settings: Settings) -> Tokenizer:
    """The vocabulary of the scenes: learned from captions of training, which name no held-out
    pair."""
    return learn_words(scene_captions(settings), settings)


def scene_captions(settings: Settings) -> list[str]:
    """Captions of scenes, many enough to hold all their words."""
    data = SceneData(no_pictures, VOCABULARY_SCENES, settings.scenes.get("seed", 0))
    return [data.caption(i, 0) for i in range(VOCABULARY_SCENES)]


def no_pictures(pictures: Any) -> Any:
    raise RuntimeError("this dataset is only read for its captions")


def learn_words(captions: Sequence[str], settings: Settings) -> Tokenizer:
    merges = train_merges(captions, settings.vocabulary)
    return Tokenizer(merges, context_length=settings.model["text"]["context_length"])


def new_pipeline(settings: Settings, tokenizer: Tokenizer, seed: int) -> Pipeline:
    """A network with random weights, its vocabulary and its preprocessing."""
    config = settings.config_for(tokenizer.vocab_size)
    return Pipeline(
        CLIP(config, seed=seed), settings.new_transform(), tokenizer, name=settings.name
    )


def scene_data(settings: Settings, pipeline: Pipeline) -> SceneData:
    """Drawn scenes: as many as the run needs, so that none comes twice, unless `count` says so."""
    options = dict(settings.scenes)
    count = options.pop("count", settings.recipe.steps * settings.recipe.batch)
    world = World(mix=tuple(options.pop("mix", TRAINING_WORLD.mix)))
    size = pipeline.transform.size
    return SceneData(pipeline.transform, count, world=world, size=size, **options)


# ------------------------------------------------------------------------ the command


def train(
    what: str | Path,
    folder: str | Path,
    data: str | Path | None = None,
    init: str | Path | None = None,
    backend: str = "auto",
    dtype: str = "float32",
    changes: dict[str, Any] | None = None,
    workers: int = 2,
    template: str = "a photo of a {}",
    held_out: float | None = None,
    report: Report = print,
    progress: bool | None = None,
    snapshots: int = 0,
) -> Pipeline:
    """Train a CLIP and write it to a folder; a folder that holds its checkpoint is gone on with.

    what: a preset ("nano", "mini-vit", "mini-rn", "mini-emoji") or a .toml file. data: the user's
    own pictures (whatever `read_pictures` takes; class folders are named by `template`); None:
    drawn scenes.
    init: a checkpoint to start from, whose sizes and words then hold. changes: fields of the
    recipe, such as steps or frozen. workers: threads that decode pictures. held_out: share of the
    user's pictures that is not trained on, but kept for `evaluate_pictures` and listed in
    held-out.json; None: what the preset or file says, or else a tenth. snapshots: how often the
    model is kept on the way, at equal distances, as snapshots/step-.../, for a learning curve.
    Returns the trained pipeline; the folder then holds what `load` reads (model.safetensors and
    the vocabulary), the run's checkpoint, log.jsonl and loss.png.
    Raises ValueError naming the argument, TrainingError if the run breaks, StateError if the
    folder's checkpoint belongs to another run.
    """
    settings, folder = read_settings(what, changes), as_path(folder)
    points = points_of(settings.recipe.steps, snapshots)
    held_out = share_of(settings) if held_out is None else held_out
    backend = backends.choose(backend)
    pipeline, source, pictures = assemble(
        settings, data, init, workers, template, report, held_out, backend
    )
    network = pipeline.network.to(backend, dtype)
    report(f"backend {backends.describe(network.ops)}")
    about: dict[str, Any] = {
        "data": str(data or "scenes"),
        "init": str(init or ""),
        "scenes": settings.scenes,
    }
    if data is not None and held_out:  # older runs held out none, and say nothing of it
        about["held_out"] = held_out
    about |= fingerprints(pipeline, pictures)
    if settings.data is not None:
        about["settings"] = asdict(settings.data)
    trainer = Trainer(
        network, source, shortened(pipeline), settings.recipe, folder, about, report, progress
    )
    if trainer.resume():
        report(where_it_stands(trainer, folder))
    elif (folder / MODEL).exists():
        raise StateError(f"{folder}: holds a {MODEL} but no checkpoint of this run; choose another")
    report(summary(pipeline, trainer))
    if pictures is not None and pictures.held_out is not None:
        folder.mkdir(parents=True, exist_ok=True)
        pictures.held_out.write(folder)
    for step in points:
        kept = folder / SNAPSHOTS / f"step-{step}"
        if step > trainer.step or (step == trainer.step and not (kept / MODEL).exists()):
            trainer.run(until=step)
            save_model(pipeline, kept)
    trainer.run()
    save_model(pipeline, folder)
    report(f"wrote {folder / MODEL}")
    return pipeline


def fingerprints(pipeline: Pipeline, pictures: PictureData | None) -> dict[str, Any]:
    """Words, preprocessing and rows: what a resumed run must find as it was."""
    found: dict[str, Any] = {
        "vocabulary": digest(pipeline.tokenizer.merges),
        "transform": asdict(pipeline.transform),
    }
    if pictures is not None:
        rows = [
            (
                str(row.path.absolute()),
                row.captions,
                row.label,
                row.named and list(row.named.texts()),
            )
            for row in pictures.rows
        ]
        found["rows"] = digest(rows)
    return found


def digest(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def points_of(steps: int, snapshots: int) -> list[int]:
    """The steps after which a model is kept, at equal distances; the last one is not among them."""
    if not isinstance(snapshots, int) or isinstance(snapshots, bool) or snapshots < 0:
        raise ValueError(f"snapshots: got {snapshots!r}, expected a whole number from 0 on")
    points = {steps * n // (snapshots + 1) for n in range(1, snapshots + 1)}
    return sorted(points - {0})


def where_it_stands(trainer: Trainer, folder: Path) -> str:
    steps = trainer.recipe.steps
    if trainer.step < steps:
        return f"going on from {folder} at step {trainer.step}"
    return f"{folder} is finished: all {steps} steps are done, nothing is left to train"


def save_model(pipeline: Pipeline, folder: Path) -> None:
    """Write the model. Where that fails, the run's checkpoint still has the trained weights."""
    try:
        pipeline.save(folder / MODEL)
    except OSError as error:
        raise OSError(
            f"{error.filename or folder / MODEL}: the model could not be written "
            f"({error.strerror or error}); the trained weights are in {folder / STATE}: make room "
            "and run the same command again"
        ) from error


def share_of(settings: Settings) -> float:
    """The share of a user's pictures that a run holds out, where the command does not say it."""
    chosen = None if settings.data is None else settings.data.held_out
    return SHARE if chosen is None else chosen


def assemble(
    settings: Settings,
    data: str | Path | None,
    init: str | Path | None,
    workers: int,
    template: str,
    report: Report,
    held_out: float = SHARE,
    backend: str = "numpy",
) -> tuple[Pipeline, Dataset, PictureData | None]:
    """The pipeline to train, the pairs to train it on, and the user's pictures behind them."""
    seed = settings.recipe.seed
    pipeline = None if init is None else load(init, "numpy")
    if data is None:
        if settings.data is not None:
            raise ValueError(f"data: got none, expected --data: {settings.name} says how to use it")
        pipeline = pipeline or new_pipeline(settings, scene_words(settings), seed)
        learns(pipeline, SCENES_IN_WORDS, scene_captions(settings), init)
        return pipeline, scene_data(settings, pipeline), None
    pictures = read_pictures(
        data,
        settings.new_transform() if pipeline is None else pipeline.transform,
        template=template,
        workers=workers,
        seed=seed,
        held_out=held_out,
        report=report,
        only=None if settings.data is None else settings.data.only,
    )
    report(pictures.summary())
    captions = captions_of(pictures.rows, settings.data)
    if pipeline is None:
        pipeline = new_pipeline(settings, learn_words(captions, settings), seed)
    captions += texts_of(pictures.rows, settings.data)
    about = f"{len(pictures.rows):,} pictures of {Path(data).name}"
    if settings.data is not None and settings.data.about is not None:
        about = settings.data.about
    learns(pipeline, about, captions, init)
    source: Any = pictures
    if settings.data is not None:
        source = augmented(settings, settings.data, pipeline, pictures, backend, workers, report)
    return pipeline, by_label(source, settings.recipe.batch, seed), pictures


def captions_of(rows: Sequence[Row], data: DataSettings | None) -> list[str]:
    """The captions of training, as often as they are said; of names and keywords some of many."""
    captions: list[str] = []
    rng = np.random.default_rng(0)
    for row in rows:
        if data is None or row.named is None:
            captions += row.captions
        else:
            captions += [data.captions.caption(row.named, rng) for _ in range(WORDINGS)]
    return captions


def texts_of(rows: Sequence[Row], data: DataSettings | None) -> list[str]:
    """Every text that captions are made of, so that no word is said never to have been seen."""
    if data is None:
        return []
    named = [row.named for row in rows if row.named is not None]
    return [text for one in named for text in data.captions.texts(one)]


def augmented(
    settings: Settings,
    data: DataSettings,
    pipeline: Pipeline,
    pictures: PictureData,
    backend: str,
    workers: int,
    report: Report,
) -> AugmentedData:
    """The pictures, decoded once, as a dataset that changes them in every step."""
    paths = [row.path for row in pictures.rows]
    side = data.side or round(SIDE * pipeline.transform.size)
    bar = partial(tqdm_pictures, len(set(paths)))
    store = stored(paths, side, pipeline.transform, workers, bar, report)
    for path, reason in store.broken.items():
        report(f"{str(path)!r} is left out: {reason}")
    rows = [row for row in pictures.rows if row.path not in store.broken]
    return AugmentedData(
        rows,
        store,
        pipeline.transform,
        data.augment,
        data.captions,
        settings.recipe.steps,
        settings.recipe.seed,
        data.ramp,
        fast_apply(backend),
    )


def fast_apply(backend: str) -> Apply:
    """What changes pictures: compiled where the network's backend is, else the version to read."""
    if backend == "numpy":
        return apply_all
    try:
        from miniclip.cpu.augment import apply_all as compiled
    except ImportError:  # no Numba beside CuPy
        return apply_all
    return compiled


def tqdm_pictures(count: int, pictures: Iterable[Any]) -> Iterable[Any]:
    """A bar on a terminal while pictures are decoded."""
    from tqdm import tqdm

    return tqdm(pictures, "decoding", count, unit=" pictures", disable=None, leave=False)


def learns(pipeline: Pipeline, about: str, captions: Sequence[str], init: Any) -> None:
    """Note what the model will know; nothing where it starts from one that does not say it."""
    knows = Knowledge.of(about, captions)
    if init is None:
        pipeline.knows = knows
    elif pipeline.knows is not None:
        pipeline.knows = pipeline.knows.and_then(knows)


def shortened(pipeline: Pipeline) -> Callable[[Sequence[str]], Any]:
    """Captions -> ids; one that is too long is cut, as open_clip does in training."""
    return lambda captions: pipeline.tokenize(list(captions), truncate=True)


def summary(pipeline: Pipeline, trainer: Trainer) -> str:
    network, recipe = pipeline.network, trainer.recipe
    trained = sum(int(np.prod(p.data.shape)) for p in trainer.optimizer.parameters.values())
    things = "labels" if isinstance(trainer.data, OneOfEachLabel) else "pairs"
    return (
        f"{pipeline!r}: {trained:,} of them trained, {len(trainer.data):,} {things}, "
        f"{recipe.steps} steps of {trainer.batch_size} on {network.ops.name}"
    )
