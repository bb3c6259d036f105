"""What a run of `miniclip train` is told: a preset by name, or a TOML file of the same sections."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from miniclip.files import as_path
from miniclip.inputs.augment import Augment
from miniclip.inputs.preprocess import Transform
from miniclip.models import CLIPConfig, TextConfig, VisionConfig
from miniclip.training.augmented import Ramp
from miniclip.training.held_out import check_share
from miniclip.training.listing import Only
from miniclip.training.recipe import Recipe
from miniclip.training.wording import Wording

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
# Ten artists' emoji, each thing once in a batch. The table comes from `miniclip data emoji`.
PRESETS["mini-emoji"] = {
    "model": {
        "embed_dim": 128,
        "vision": {**MINI_RN, "width": 24, "pool": "average"},
        "text": TEXT,
    },
    "vocabulary": 3000,
    "recipe": {"steps": 20_000, "batch": 128, "learning_rate": 2e-3, "warm_up": 300},
    "transform": {"resize_mode": "longest", "fill": 255, "alpha": "white"},
    "data": {
        "about": "emoji: some 1,500 things in ten styles of drawing, named in English and Chinese",
        "held_out": 0.0,  # the table says itself what is never trained on
        "only": {
            "split": ["train"],
            "style": [
                "noto",
                "noto-v1",
                "twemoji",
                "fluent-emoji",
                "fluent-emoji-flat",
                "fluent-emoji-high-contrast",
                "emojione",
                "emojione-monotone",
                "fxemoji",
                "streamline-emojis",
            ],
        },
        "augment": {},
        "captions": {
            "languages": {"en": 0.7, "zh": 0.3},
            "templates": {
                "en": ["{}", "{}", "a {}", "a picture of a {}", "an emoji of a {}"],
                "zh": ["{}", "{}", "{}的图片"],
            },
        },
    },
}
SECTIONS = ("model", "vocabulary", "recipe", "scenes", "transform", "data")
SCENE_OPTIONS = ("seed", "wrong", "language", "count", "mix")


@dataclass(frozen=True)
class DataSettings:
    """How the pictures of --data are used; without this section, as they are.

    only: rows of the table that are used: column -> values. held_out: share of the pictures that
    is kept for an evaluation, where the command does not say it; None: its default. about: goes on
    from "this model knows". side: pixels of the decoded squares that augmentation reads; None: a
    quarter more than the network takes. augment: how far changes go; None: none. ramp: how strong
    they are on the way. captions: how names and keywords become captions.
    Raises ValueError naming the field.
    """

    only: Only = field(default_factory=dict)
    held_out: float | None = None
    about: str | None = None
    side: int | None = None
    augment: Augment | None = None
    ramp: Ramp = field(default_factory=Ramp)
    captions: Wording = field(default_factory=Wording)

    def __post_init__(self) -> None:
        if not isinstance(self.only, Mapping) or not all(map(is_choice, self.only.values())):
            raise ValueError(f"only: got {self.only!r}, expected lists of values, one a column")
        lower = {column.strip().lower(): list(values) for column, values in self.only.items()}
        object.__setattr__(self, "only", lower)  # as tables' columns are read
        if self.held_out is not None:
            check_share(self.held_out)
        if self.about is not None and not isinstance(self.about, str):
            raise ValueError(f"about: got {self.about!r}, expected a text")
        if self.side is not None and (type(self.side) is not int or self.side < 1):
            raise ValueError(f"side: got {self.side!r}, expected a whole number from 1 on")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSettings:
        """ValueError names the field, as "data.augment.hue"."""
        given = {**check_fields("data", values, cls)}
        kinds: dict[str, Any] = {"augment": Augment, "ramp": Ramp, "captions": Wording}
        for name, kind in kinds.items():
            if name in given:
                content = check_fields(f"data.{name}", given[name], kind)
                given[name] = named_errors(f"data.{name}", kind, content)
        settings: DataSettings = named_errors("data", cls, given)
        return settings


def is_choice(values: Any) -> bool:
    """Whether this is a list of texts or numbers; a single text would be taken letter by letter."""
    return isinstance(values, list | tuple) and all(
        isinstance(v, str | int | float) for v in values
    )


def check_fields(section: str, values: Any, kind: Any) -> dict[str, Any]:
    """The values of a section. ValueError for what is no table, or a field it does not have."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{section}: got {values!r}, expected a table of settings")
    known = [f.name for f in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{section}.{unknown[0]}: expected {', '.join(known)}")
    return dict(values)


def named_errors(section: str, make: Callable[..., Any], given: dict[str, Any]) -> Any:
    """What a constructor makes, the section named in front of what it finds wrong."""
    try:
        return make(**given)
    except ValueError as error:
        raise ValueError(f"{section}.{error}") from error


@dataclass(frozen=True)
class Settings:
    """What a preset or a configuration file says.

    model: sizes of both towers, without the vocabulary's, which is learned. vocabulary: how many
    ids it may have. scenes: seed, wrong, language, count of the drawn data. transform: fields of
    a new network's preprocessing. data: how the pictures of --data are used; None: as they are.
    """

    name: str
    model: dict[str, Any]
    vocabulary: int
    recipe: Recipe
    scenes: dict[str, Any]
    transform: dict[str, Any] = field(default_factory=dict)
    data: DataSettings | None = None

    @property
    def config(self) -> CLIPConfig:
        """The network's configuration, for a vocabulary of the largest size."""
        return self.config_for(self.vocabulary)

    def config_for(self, vocab_size: int) -> CLIPConfig:
        vision = VisionConfig(**self.model["vision"])
        text = TextConfig(vocab_size=vocab_size, **self.model["text"])
        return CLIPConfig(self.model["embed_dim"], vision, text)

    def new_transform(self) -> Transform:
        """The preprocessing of a new network, whose size is the image tower's."""
        size = VisionConfig(**self.model["vision"]).image_resolution
        return Transform(**{**self.transform, "size": size})


# ------------------------------------------------------------------------ reading them


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
    transform = check_fields("transform", content.get("transform", {}), Transform)
    if "size" in transform:
        raise ValueError("transform.size: expected none, model.vision.image_resolution decides it")
    data = DataSettings.from_dict(content["data"]) if "data" in content else None
    settings = Settings(name, model, content["vocabulary"], recipe, scenes, transform, data)
    _ = settings.config, settings.new_transform()  # impossible sizes are refused now
    return settings
