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
from miniclip.files import as_path
from miniclip.inputs.bpe import train_merges
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig
from miniclip.pipeline import Knowledge, Pipeline, load
from miniclip.training.data import Dataset, SceneData
from miniclip.training.held_out import SHARE
from miniclip.training.loop import STATE, Trainer
from miniclip.training.pictures import PictureData, read_pictures
from miniclip.training.recipe import Recipe
from miniclip.training.state import StateError
from miniclip.world.scenes import TRAINING_WORLD, World

MODEL = "model.safetensors"
SCENES_IN_WORDS = "drawings of coloured shapes, named in English and Chinese"
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
        content = _read_toml(as_path(what))
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    try:
        return make_settings(str(what), content, given)
    except (ValueError, TypeError) as error:
        if str(error).partition(":")[0] in given:  # what is wrong is a change, not the file
            raise ValueError(str(error)) from error
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
    recipe = Recipe.from_dict({**content["recipe"], **changes})
    settings = Settings(name, model, content["vocabulary"], recipe, scenes)
    _ = settings.config  # impossible sizes are refused now
    return settings


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
    held_out: float = SHARE,
    report: Report = print,
    progress: bool | None = None,
) -> Pipeline:
    """Train a CLIP and write it to a folder; a folder that holds its checkpoint is gone on with.

    what: a preset ("nano", "mini-vit", "mini-rn") or a .toml file. data: the user's own pictures (a
    .csv or .jsonl file, or a folder of class folders, named by `template`); None: drawn scenes.
    init: a checkpoint to start from, whose sizes and words then hold. changes: fields of the
    recipe, such as steps or frozen. workers: threads that decode pictures. held_out: share of the
    user's pictures that is not trained on, but kept for `evaluate_pictures` and listed in
    held-out.json.
    Returns the trained pipeline; the folder then holds what `load` reads (model.safetensors and
    the vocabulary), the run's checkpoint, log.jsonl and loss.png.
    Raises ValueError naming the argument, TrainingError if the run breaks, StateError if the
    folder's checkpoint belongs to another run.
    """
    settings, folder = read_settings(what, changes), as_path(folder)
    pipeline, source = assemble(settings, data, init, workers, template, report, held_out)
    network = pipeline.network.to(backends.choose(backend), dtype)
    report(f"backend {backends.describe(network.ops)}")
    about: dict[str, Any] = {
        "data": str(data or "scenes"),
        "init": str(init or ""),
        "scenes": settings.scenes,
    }
    if data is not None and held_out:  # older runs held out none, and say nothing of it
        about["held_out"] = held_out
    trainer = Trainer(
        network, source, shortened(pipeline), settings.recipe, folder, about, report, progress
    )
    if trainer.resume():
        report(where_it_stands(trainer, folder))
    elif (folder / MODEL).exists():
        raise StateError(f"{folder}: holds a {MODEL} but no checkpoint of this run; choose another")
    report(summary(pipeline, trainer))
    if isinstance(source, PictureData) and source.held_out is not None:
        folder.mkdir(parents=True, exist_ok=True)
        source.held_out.write(folder)
    trainer.run()
    save_model(pipeline, folder)
    report(f"wrote {folder / MODEL}")
    return pipeline


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


def assemble(
    settings: Settings,
    data: str | Path | None,
    init: str | Path | None,
    workers: int,
    template: str,
    report: Report,
    held_out: float = SHARE,
) -> tuple[Pipeline, Dataset]:
    """The pipeline to train and the pairs to train it on."""
    seed = settings.recipe.seed
    pipeline = None if init is None else load(init, "numpy")
    if data is None:
        pipeline = pipeline or new_pipeline(settings, scene_words(settings), seed)
        learns(pipeline, SCENES_IN_WORDS, scene_captions(settings), init)
        return pipeline, scene_data(settings, pipeline)
    pictures = read_pictures(
        data,
        new_transform(settings) if pipeline is None else pipeline.transform,
        template=template,
        workers=workers,
        seed=seed,
        held_out=held_out,
        report=report,
    )
    report(pictures.summary())
    captions = [caption for row in pictures.rows for caption in row.captions]
    if pipeline is None:
        pipeline = new_pipeline(settings, learn_words(captions, settings), seed)
    learns(pipeline, f"{len(pictures.rows):,} pictures of {Path(data).name}", captions, init)
    return pipeline, pictures


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
    return (
        f"{pipeline!r}: {trained:,} of them trained, {len(trainer.data):,} pairs, "
        f"{recipe.steps} steps of {trainer.batch_size} on {network.ops.name}"
    )
