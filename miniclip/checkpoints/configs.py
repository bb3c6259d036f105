"""What a checkpoint is, beyond its tensors: who says so, and what is believed.

Shapes give most of a configuration, but not the activation, the heads, LayerNorm's eps, an
overlapping stride, or which token ends a text. Several sources may say: the caller's arguments, a
configuration file beside the weights, the notes in the file itself, the table of known names. Each
becomes a `Source`: what it claims, by the names of `CLIPConfig`'s fields. The first source that
says something is believed; where shapes tell too, every source has to agree with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miniclip.checkpoints.errors import CheckpointError, kind_of
from miniclip.checkpoints.tensor_shapes import Shapes
from miniclip.models import CLIPConfig, TextConfig, VisionConfig, infer_config
from miniclip.models.config import HEAD_WIDTH

ONE_HEAD = 2**62  # a head width that no tower reaches: infer_config then leaves one head
WIDEST_ORIGINAL = 1024  # tokens of ViT-L; wider towers (H, g, bigG) have other head widths than 64
UNSEEN = ("activation", "heads", "head_width", "eps", "stride", "end_id")  # not in any shape
TEXTS = ("activation", "pool")  # fields that hold a word
EPS = 1e-5  # of LayerNorm and BatchNorm in the original


@dataclass(frozen=True)
class Source:
    """Who says what: name for errors ("config.json"); claims such as {"vision.heads": 12}."""

    name: str
    claims: dict[str, Any]


def caller_source(
    name: str,
    shapes: Shapes,
    activation: str | tuple[str, str] | None = None,
    head_width: int | tuple[int, int] | None = None,
    stride: int | None = None,
) -> Source:
    """What a caller said. activation: of both towers, or (image, text); head_width: of the image
    tower (or the only one), or (image, text)."""
    if isinstance(activation, tuple) and len(activation) != 2:
        raise ValueError(f"activation: got {activation!r}, expected a name, or (image, text)")
    if isinstance(head_width, tuple) and len(head_width) != 2:
        raise ValueError(f"head_width: got {head_width!r}, expected a number, or (image, text)")
    pair = activation if isinstance(activation, tuple) else (activation, activation)
    if not isinstance(head_width, tuple):
        text_only = not any(key.startswith("visual.") for key in shapes)
        head_width = (head_width, head_width if text_only else None)  # type: ignore[assignment]
    vision_head, text_head = head_width  # type: ignore[misc]
    claims = {
        "vision.activation": pair[0],
        "text.activation": pair[1],
        "vision.head_width": vision_head,
        "text.head_width": text_head,
        "vision.stride": stride,
    }
    return Source(name, {field: value for field, value in claims.items() if value is not None})


def decide_config(path: Path, shapes: Shapes, sources: Sequence[Source]) -> CLIPConfig:
    """The configuration of tensors with these shapes (under the original's names).

    sources: the most trusted first. Raises CheckpointError that names the field or key.
    """
    for source in sources:
        for field, value in source.claims.items():
            check_value(f"{path}: {source.name}", field, value)
    try:
        seen = infer_from_shapes(shapes, sources)
        vision = seen.vision and decide_vision(path, seen.vision, sources)
        text = seen.text and decide_text(path, seen.text, sources)
        config = replace(seen, vision=vision, text=text)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for source in sources:
        check_agreement(path, seen, source)
    return config


def first_said(sources: Sequence[Source], field: str, default: Any) -> Any:
    """What the most trusted source says about a field."""
    for source in sources:
        if field in source.claims:
            return source.claims[field]
    return default


def infer_from_shapes(shapes: Shapes, sources: Sequence[Source]) -> CLIPConfig:
    """What shapes tell. Activation and heads are put in later, each tower its own."""
    averaged = (
        "visual.attnpool.c_proj.weight" in shapes
        and "visual.attnpool.positional_embedding" not in shapes
        and first_said(sources, "vision.pool", "attention") == "average"
    )
    if averaged:  # without positions no shape shows the resolution: put in those it would have
        side = first_said(sources, "vision.image_resolution", 0) // 32
        channels = (shapes["visual.attnpool.c_proj.weight"] or (0,))[-1]
        shapes = {**shapes, "visual.attnpool.positional_embedding": (side**2 + 1, channels)}
    stride = first_said(sources, "vision.stride", None)
    config = infer_config(shapes, activation="gelu", head_width=ONE_HEAD, stride=stride)
    if averaged and config.vision is not None:
        config = replace(config, vision=replace(config.vision, pool="average"))
    return config


def decide_vision(path: Path, seen: VisionConfig, sources: Sequence[Source]) -> VisionConfig:
    width = 32 * seen.width if seen.is_resnet else seen.width
    if not seen.is_resnet and width > WIDEST_ORIGINAL and not heads_are_said(sources, "vision"):
        raise CheckpointError(
            f"{path}: no source says how many heads an image tower of width {width} has, and wide "
            "ones differ: pass head_width= (ViT-H: 80, g: 88, bigG: 104)"
        )
    return replace(
        seen,
        activation=decide_activation(path, "vision", sources),
        heads=decide_heads(path, "vision", width, sources),
        eps=float(first_said(sources, "vision.eps", EPS)),
        mlp_width=None if seen.mlp_width == 4 * seen.width else seen.mlp_width,
        stride=None if seen.stride == seen.patch_size else seen.stride,
    )


def decide_text(path: Path, seen: TextConfig, sources: Sequence[Source]) -> TextConfig:
    return replace(
        seen,
        activation=decide_activation(path, "text", sources),
        heads=decide_heads(path, "text", seen.width, sources),
        eps=float(first_said(sources, "text.eps", EPS)),
        mlp_width=None if seen.mlp_width == 4 * seen.width else seen.mlp_width,
        end_id=first_said(sources, "text.end_id", None),
    )


def decide_activation(path: Path, tower: str, sources: Sequence[Source]) -> str:
    """Never guessed: QuickGELU taken for GELU gives embeddings that are wrong and look right."""
    activation = first_said(sources, f"{tower}.activation", None)
    if activation is None:
        raise CheckpointError(
            f"{path}: neither a configuration beside it nor its own notes say which activation it "
            "was trained with: pass activation='quick_gelu' (OpenAI's and most that start from "
            "them) or activation='gelu' (most of LAION's and DataComp's)"
        )
    return str(activation)


def heads_are_said(sources: Sequence[Source], tower: str) -> bool:
    names = (f"{tower}.heads", f"{tower}.head_width")
    return any(name in source.claims for source in sources for name in names)


def decide_heads(path: Path, tower: str, width: int, sources: Sequence[Source]) -> int:
    """The heads said first, as their number or as their width; else the original's rule."""
    head_width = HEAD_WIDTH
    for source in sources:
        if f"{tower}.heads" in source.claims:
            return int(source.claims[f"{tower}.heads"])
        if f"{tower}.head_width" in source.claims:
            head_width = source.claims[f"{tower}.head_width"]
            break
    if width % head_width:
        raise CheckpointError(
            f"{path}: {tower}.head_width: got {head_width}, expected a divisor of the width "
            f"{width}: pass head_width="
        )
    return width // head_width


def check_agreement(path: Path, seen: CLIPConfig, source: Source) -> None:
    """What a source says about sizes must be what the tensors have."""
    for field, claimed in source.claims.items():
        tower_name, _, name = field.rpartition(".")
        if name in UNSEEN or claimed is None:
            continue
        tower = getattr(seen, tower_name) if tower_name else seen
        if tower is None or (field == "embed_dim" and not projects(seen)):
            continue  # a configuration of both towers beside a file that holds one
        found = getattr(tower, name)
        if claimed != found:
            raise CheckpointError(
                f"{path}: {source.name} says {field} = {claimed}, but the tensors' shapes give "
                f"{found}"
            )


def projects(config: CLIPConfig) -> bool:
    return any(tower is not None and tower.proj for tower in (config.vision, config.text))


def check_value(where: str, field: str, value: Any) -> None:
    """The type of one claim: it may come from anyone's JSON."""
    name = field.rpartition(".")[2]
    if name in TEXTS:
        good, expected = isinstance(value, str), "a name"
    elif name == "eps":
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
        expected = "a number between 0 and 1"
    elif name == "proj":
        good, expected = isinstance(value, bool), "true or false"
    elif name == "layers" and isinstance(value, tuple):
        good, expected = all(is_count(n) for n in value), "four numbers of blocks"
    elif name == "end_id" and value is None:
        return
    else:
        good = is_count(value) or (name == "end_id" and type(value) is int and value == 0)
        expected = "a positive integer"
    if not good:
        raise CheckpointError(f"{where}: {field} is {kind_of(value)}, expected {expected}")


def is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31
