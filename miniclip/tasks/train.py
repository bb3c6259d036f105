"""`miniclip train`: from a preset, a configuration file or a checkpoint to a trained model.

The loop itself is in `miniclip.training`; here its parts are put together: which network, which
words, which pictures, and where the result goes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniclip import backends
from miniclip.inputs.bpe import train_merges
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig
from miniclip.pipeline import Pipeline, load
from miniclip.training.data import Dataset, SceneData
from miniclip.training.loop import Trainer
from miniclip.training.pictures import read_pictures
from miniclip.training.recipe import Recipe
from miniclip.training.state import StateError
from miniclip.world.scenes import TRAINING_WORLD, World

MODEL = "model.safetensors"
VOCABULARY_SCENES = 12_000  # whose captions the vocabulary of scenes is learned from
Report = Callable[[str], None]

TEXT = {"context_length": 32, "width": 128, "heads": 4, "layers": 2}
MINI_VIT = {
    "image_resolution": 64,
    "layers": 4,
    "width": 128,
    "heads": 4,
    "patch_size": 16,
    "stride": 8,
}
MINI_RN = {"image_resolution": 64, "layers": [1, 1, 1, 1], "width": 16, "heads": 8}

# docs/training.md says how these sizes were chosen.
PRESETS: dict[str, dict[str, Any]] = {
    "nano": {  # one thing in each picture, the plain mean of pixels: what learns fastest
        "model": {
            "embed_dim": 64,
            "vision": {**MINI_RN, "pool": "average"},
            "text": {**TEXT, "width": 64, "heads": 2},
        },
        "vocabulary": 740,
        "recipe": {"steps": 750, "batch": 64, "learning_rate": 2e-3, "warm_up": 40},
        "scenes": {"mix": [1.0, 0.0, 0.0, 0.0]},
    },
    "mini-vit": {
        "model": {"embed_dim": 128, "vision": MINI_VIT, "text": TEXT},
        "vocabulary": 740,
        "recipe": {"steps": 3000, "batch": 128, "learning_rate": 1e-3, "warm_up": 150},
    },
    "mini-rn": {
        "model": {"embed_dim": 128, "vision": MINI_RN, "text": TEXT},
        "vocabulary": 740,
        "recipe": {"steps": 3000, "batch": 128, "learning_rate": 1e-3, "warm_up": 150},
    },
}
SECTIONS = ("model", "vocabulary", "recipe", "scenes")
SCENE_OPTIONS = ("seed", "wrong", "language", "count", "mix")


@dataclass(frozen=True)
class Settings:
    """What a preset or a configuration file says.

    model: sizes of both towers, without the vocabulary's, which is learned. vocabulary: how many
    ids it may have. scenes: seed, wrong, language, count of the drawn data.
    """

    name: str
    model: dict[str, Any]
    vocabulary: int
    recipe: Recipe
    scenes: dict[str, Any]

    @property
    def config(self) -> CLIPConfig:
        """The network's configuration, for a vocabulary of the largest size."""
        return self.config_for(self.vocabulary)

    def config_for(self, vocab_size: int) -> CLIPConfig:
        vision = VisionConfig(**self.model["vision"])
        text = TextConfig(vocab_size=vocab_size, **self.model["text"])
        return CLIPConfig(self.model["embed_dim"], vision, text)


# ------------------------------------------------------------------------ settings


def read_settings(what: str | Path, changes: dict[str, Any] | None = None) -> Settings:
    """A preset by name, or a TOML file with the same sections; changes: fields of the recipe.

    Raises ValueError naming the file or preset and the field.
    """
    content = PRESETS.get(str(what))
    if content is None:
        content = _read_toml(Path(what))
    try:
        return make_settings(str(what), content, changes or {})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: {error}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(
            f"preset: got {str(path)!r}, expected one of {', '.join(PRESETS)}, or a .toml file"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML ({error})") from error


def make_settings(name: str, content: dict[str, Any], changes: dict[str, Any]) -> Settings:
    unknown = sorted(set(content) - set(SECTIONS))
    if unknown:
        raise ValueError(f"{unknown[0]}: no section; expected {', '.join(SECTIONS)}")
    missing = [section for section in ("model", "vocabulary", "recipe") if section not in content]
    if missing:
        raise ValueError(f"{missing[0]}: missing")
    scenes = dict(content.get("scenes", {}))
    if strange := sorted(set(scenes) - set(SCENE_OPTIONS)):
        raise ValueError(f"scenes.{strange[0]}: expected {', '.join(SCENE_OPTIONS)}")
    model = content["model"]
    if absent := [part for part in ("embed_dim", "vision", "text") if part not in model]:
        raise ValueError(f"model.{absent[0]}: missing")
    given = {key: value for key, value in changes.items() if value is not None}
    recipe = Recipe.from_dict({**content["recipe"], **given})
    settings = Settings(name, model, content["vocabulary"], recipe, scenes)
    _ = settings.config  # impossible sizes are refused now
    return settings


# ------------------------------------------------------------------------ parts


def scene_words(settings: Settings) -> Tokenizer:
    """The vocabulary of the scenes: learned from captions of training, which name no held-out
    pair."""
    data = SceneData(no_pictures, VOCABULARY_SCENES, settings.scenes.get("seed", 0))
    return learn_words([data.caption(i, 0) for i in range(VOCABULARY_SCENES)], settings)


def no_pictures(pictures: Any) -> Any:
    raise RuntimeError("this dataset is only read for its captions")


def learn_words(captions: Sequence[str], settings: Settings) -> Tokenizer:
    merges = train_merges(captions, settings.vocabulary)
    return Tokenizer(merges, context_length=settings.model["text"]["context_length"])


def new_pipeline(settings: Settings, tokenizer: Tokenizer, seed: int) -> Pipeline:
    """A network with random weights, its vocabulary and its preprocessing."""
    config = settings.config_for(tokenizer.vocab_size)
    return Pipeline(CLIP(config, seed=seed), new_transform(settings), tokenizer, name=settings.name)


def new_transform(settings: Settings) -> Transform:
    """The preprocessing of a new network, which its picture size decides."""
    return Transform(size=VisionConfig(**settings.model["vision"]).image_resolution)


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
    report: Report = print,
    progress: bool | None = None,
) -> Pipeline:
    """Train a CLIP and write it to a folder; a folder that holds its checkpoint is gone on with.

    what: a preset ("nano", "mini-vit", "mini-rn") or a .toml file. data: the user's own pictures (a
    .csv or .jsonl file, or a folder of class folders, named by `template`); None: drawn scenes.
    init: a checkpoint to start from, whose sizes and words then hold. changes: fields of the
    recipe, such as steps or frozen. workers: threads that decode pictures.
    Returns the trained pipeline; the folder then holds what `load` reads (model.safetensors and
    the vocabulary), the run's checkpoint, log.jsonl and loss.png.
    Raises ValueError naming the argument, TrainingError if the run breaks, StateError if the
    folder's checkpoint belongs to another run.
    """
    settings, folder = read_settings(what, changes), Path(folder)
    pipeline, source = assemble(settings, data, init, workers, template, report)
    network = pipeline.network.to(backends.choose(backend), dtype)
    report(f"backend {backends.describe(network.ops)}")
    about = {"data": str(data or "scenes"), "init": str(init or ""), "scenes": settings.scenes}
    trainer = Trainer(
        network, source, shortened(pipeline), settings.recipe, folder, about, report, progress
    )
    if trainer.resume():
        report(f"going on from {folder} at step {trainer.step}")
    elif (folder / MODEL).exists():
        raise StateError(f"{folder}: holds a {MODEL} but no checkpoint of this run; choose another")
    report(summary(pipeline, trainer))
    trainer.run()
    pipeline.save(folder / MODEL)
    report(f"wrote {folder / MODEL}")
    return pipeline


def assemble(
    settings: Settings,
    data: str | Path | None,
    init: str | Path | None,
    workers: int,
    template: str,
    report: Report,
) -> tuple[Pipeline, Dataset]:
    """The pipeline to train and the pairs to train it on."""
    seed = settings.recipe.seed
    pipeline = None if init is None else load(init, "numpy")
    if data is None:
        pipeline = pipeline or new_pipeline(settings, scene_words(settings), seed)
        return pipeline, scene_data(settings, pipeline)
    pictures = read_pictures(
        data,
        new_transform(settings) if pipeline is None else pipeline.transform,
        template=template,
        workers=workers,
        seed=seed,
        report=report,
    )
    report(pictures.summary())
    if pipeline is None:
        captions = [caption for row in pictures.rows for caption in row.captions]
        pipeline = new_pipeline(settings, learn_words(captions, settings), seed)
    return pipeline, pictures


def shortened(pipeline: Pipeline) -> Callable[[Sequence[str]], Any]:
    """Captions -> ids; one that is too long is cut, as open_clip does in training."""
    return lambda captions: pipeline.tokenize(list(captions), truncate=True)


def summary(pipeline: Pipeline, trainer: Trainer) -> str:
    network, recipe = pipeline.network, trainer.recipe
    trained = sum(int(np.prod(p.data.shape)) for p in trainer.optimizer.parameters.values())
    return (
        f"{pipeline!r}: {trained:,} of them trained, {len(trainer.data):,} pairs, "
        f"{recipe.steps} steps of {trainer.batch_size} on {network.ops.name}"
    )
