"""How well a CLIP reads drawn scenes that it has never seen: zero-shot, on a seed of its own.

    pair       "a red circle": which of all 120 names fits a picture of one thing?   chance 1/120
    colour     is at least the colour of that answer right?                          chance 1/10
    shape      ... or its shape?                                                     chance 1/12
    count      "two red circles": one, two or three of them?                         chance 1/3
    relation   "a red circle above a blue square": above, below, left or right?      chance 1/4
    binding    ... or "a blue square above a red circle", the same words?            chance 1/2

The first three are asked of pairs that training has shown (seen) and of those that it never drew
or named (held out), among the names of all pairs: a model that avoids words it never read together
loses here. A tie is no answer.

Source: zero-shot as in CLIP section 3.1; the same words in another order as in Thrush et al. 2022
(Winoground, arXiv 2204.03162).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tasks.evaluation_result import ALL, Evaluation, Score
from miniclip.world.captions import LANGUAGES, NUMBERS, name_count, name_pair, name_relation
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import (
    COLOUR_SHAPE_PAIRS,
    COLOURS,
    HELD_OUT,
    RELATIONS,
    SEEN,
    SHAPES,
    TEXTURES,
    TRAINING_WORLD,
    Scene,
    Thing,
    World,
    make_scene,
    relation_of,
    single_world,
)

if TYPE_CHECKING:
    from PIL.Image import Image

EVALUATION_SEED = 1_000_003  # training uses small seeds

SINGLE_WORLDS = {"seen": single_world(SEEN), "held-out": single_world(HELD_OUT)}
# One, two or three, equally often. One thing is drawn as small as training ever draws it, which is
# hardly larger than things are in company: else its size would give the number away.
SMALLEST = TRAINING_WORLD.radius[0]
COUNT_WORLD = World(mix=(1 / 3, 2 / 3, 0.0, 0.0), radius=(SMALLEST, SMALLEST))
RELATION_WORLD = World(mix=(0.0, 0.0, 1.0, 0.0))

SIZES = ("small", "middle", "large")
# What answers are broken down by, and the groups in the order of the tables.
GROUPS: dict[str, tuple[str, ...]] = {
    "texture": TEXTURES,
    "size": SIZES,
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "number": tuple(NUMBERS.values()),
    "relation": RELATIONS,
}
NO_ANSWER = -1


# ------------------------------------------------------------------------ the questions


def evaluate(
    pipeline: Pipeline,
    count: int = 1200,
    seed: int = EVALUATION_SEED,
    languages: Sequence[str] = LANGUAGES,
) -> Evaluation:
    """Ask a loaded model all questions, about `count` scenes of each of four kinds of pictures.

    The kinds: one thing of a seen pair, one of a held-out pair, one to three equal things, two
    different things. seed: of the scenes; choose one that training has not used.
    languages: of "en" and "zh". Raises ValueError naming the argument.
    """
    check_count(count)
    unknown = [language for language in languages if language not in LANGUAGES]
    if unknown or not languages:
        raise ValueError(f"languages: got {list(languages)}, expected some of {list(LANGUAGES)}")
    scores: list[Score] = []
    for pairs, world in SINGLE_WORLDS.items():
        scores += score_pairs(pipeline, make_scenes(world, count, seed), pairs, languages)
    scores += score_counts(pipeline, make_scenes(COUNT_WORLD, count, seed), languages)
    scores += score_relations(pipeline, make_scenes(RELATION_WORLD, count, seed), languages)
    return Evaluation(pipeline.name, count, seed, tuple(scores))


def check_count(count: int, least: int = 1) -> None:
    """Raise ValueError unless count is a whole number, `least` or more."""
    if not isinstance(count, int) or count < least:
        raise ValueError(f"count: got {count!r}, expected a whole number, at least {least}")


def score_pairs(
    pipeline: Pipeline, scenes: Sequence[Scene], pairs: str, languages: Sequence[str]
) -> list[Score]:
    """Which of all 120 names fits the one thing of each scene?"""
    images = embed_scenes(pipeline, scenes)  # (N, E)
    things = [scene.things[0] for scene in scenes]
    groups = {
        "texture": [thing.texture for thing in things],
        "size": [size_of(thing) for thing in things],
        "colour": [thing.colour for thing in things],
        "shape": [thing.shape for thing in things],
    }
    scores = []
    for language in languages:
        answers = answer_pairs(images, embed_pairs(pipeline, language))
        both = list(zip(answers, things, strict=True))
        right = [answer == thing.pair for answer, thing in both]
        scores += tally(right, "pair", language, pairs, groups if language == "en" else {})
        scores += tally([a[0] == t.colour for a, t in both], "colour", language, pairs)
        scores += tally([a[1] == t.shape for a, t in both], "shape", language, pairs)
    return scores


def score_counts(
    pipeline: Pipeline, scenes: Sequence[Scene], languages: Sequence[str]
) -> list[Score]:
    """One, two or three: which number fits, once colour and shape are given?"""
    images = embed_scenes(pipeline, scenes)  # (N, E)
    numbers = list(NUMBERS)
    truth = [numbers.index(len(scene.things)) for scene in scenes]
    groups = {"number": [NUMBERS[len(scene.things)] for scene in scenes]}
    scores = []
    for language in languages:
        statements = [count_statements(scene, language) for scene in scenes]
        right = choose(ask(pipeline, images, statements)) == truth  # (N,)
        scores += tally(right, "count", language, "seen", groups)
    return scores


def score_relations(
    pipeline: Pipeline, scenes: Sequence[Scene], languages: Sequence[str]
) -> list[Score]:
    """Where is the first thing, seen from the second, and which of both is it that is there?"""
    images = embed_scenes(pipeline, scenes)  # (N, E)
    true_relations = [relation_of(*scene.things) for scene in scenes]
    truth = [RELATIONS.index(relation) for relation in true_relations]
    groups = {"relation": true_relations}
    # The true one of two statements stands first and second by turns: a model to which both are
    # alike, but for rounding, is right in half the scenes.
    places = np.arange(len(scenes)) % 2
    scores = []
    for language in languages:
        statements = [relation_statements(scene, language) for scene in scenes]
        right = choose(ask(pipeline, images, statements)) == truth  # (N,)
        scores += tally(right, "relation", language, "seen", groups)
        statements = [
            binding_statements(scene, language)[:: -1 if place else 1]
            for scene, place in zip(scenes, places, strict=True)
        ]
        right = choose(ask(pipeline, images, statements)) == places  # (N,)
        scores += tally(right, "binding", language, "seen")
    return scores


def count_statements(scene: Scene, language: str) -> list[str]:
    """ "one red circle", "two red circles", "three red circles"."""
    return [name_count(scene.things[0], number, language) for number in NUMBERS]


def relation_statements(scene: Scene, language: str) -> list[str]:
    """ "a red circle above a blue square", "... below ...", "... left ...", "... right ..."."""
    a, b = scene.things
    return [name_relation(a, relation, b, language) for relation in RELATIONS]


def binding_statements(scene: Scene, language: str) -> list[str]:
    """The true statement, and then the same with both things in each other's place: a false one."""
    a, b = scene.things
    relation = relation_of(a, b)
    return [name_relation(a, relation, b, language), name_relation(b, relation, a, language)]


def size_of(thing: Thing) -> str:
    """Which third of the sizes of single things: they are equally frequent."""
    low, high = TRAINING_WORLD.radius
    third = int(len(SIZES) * (thing.radius - low) / (high - low))
    return SIZES[min(max(third, 0), len(SIZES) - 1)]


# ------------------------------------------------------------------------ asking


def make_scenes(world: World, count: int, seed: int) -> list[Scene]:
    """The first scenes of a seed."""
    return [make_scene(world, seed, number) for number in range(count)]


def embed_scenes(
    pipeline: Pipeline, scenes: Sequence[Scene], draw: Callable[[Scene], Image] = draw_scene
) -> Array:
    """Image embeddings of unit length, (N, E). A picture is drawn when its turn comes."""
    images = pipeline.encode_image(map(draw, scenes), normalize=True, progress=False)
    check_finite("pictures", images)
    return images


def embed_statements(pipeline: Pipeline, statements: Sequence[str]) -> Array:
    """Text embeddings of unit length, (N, E). ValueError where the model lacks words for them."""
    try:
        texts = pipeline.encode_text(list(statements), normalize=True, progress=False)
    except ValueError as error:
        raise ValueError(
            f"model: its vocabulary does not suit the captions of drawn scenes ({error}); to "
            "measure it on pictures of your own, name them by --data"
        ) from error
    check_finite("texts", texts)
    return texts


def check_finite(what: str, features: Array) -> None:
    """Raise ValueError for embeddings (N, E) with a NaN: it is neither a better nor a worse fit."""
    bad = np.logical_not(np.isfinite(features)).any(axis=1)  # (N,)
    if bad.any():
        raise ValueError(
            f"model: the embeddings of {int(bad.sum())} of {len(features)} {what} are not numbers"
        )


def embed_pairs(pipeline: Pipeline, language: str = "en") -> Array:
    """Text embeddings of the names of all COLOUR_SHAPE_PAIRS, of unit length, (120, E)."""
    names = [name_pair(*pair, language) for pair in COLOUR_SHAPE_PAIRS]
    return embed_statements(pipeline, names)


def answer_pairs(images: Array, names: Array) -> list[tuple[str, str]]:
    """(N, E) and (120, E) -> for each picture the pair that fits best, ("", "") at a tie."""
    chosen = choose(images @ names.T)  # (N,)
    return [("", "") if i == NO_ANSWER else COLOUR_SHAPE_PAIRS[i] for i in chosen]


def ask(pipeline: Pipeline, images: Array, statements: Sequence[Sequence[str]]) -> Array:
    """Pictures (N, E), and for each of them K statements of its own -> cosines (N, K)."""
    different = list(dict.fromkeys(s for group in statements for s in group))  # each encoded once
    number = {statement: i for i, statement in enumerate(different)}
    texts = embed_statements(pipeline, different)  # (number of texts, E)
    own = np.array([[number[s] for s in group] for group in statements])  # (N, K)
    return np.einsum("ne,nke->nk", images, texts[own])


def choose(cosine: Array) -> Array:
    """(N, K) -> the column that fits best, (N,); NO_ANSWER where another fits as well.

    A model whose embeddings are all alike would otherwise choose the first column every time.
    """
    is_best = cosine == cosine.max(axis=1, keepdims=True)  # (N, K)
    return np.where(is_best.sum(axis=1) == 1, is_best.argmax(axis=1), NO_ANSWER)


def tally(
    right: Sequence[bool] | Array,
    question: str,
    language: str,
    pairs: str,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> list[Score]:
    """The score of all answers, and one for each group that has scenes.

    groups: names such as "texture" -> the group of every scene ("striped").
    """
    hits = np.asarray(right, bool)  # (N,)
    scores = [Score(question, language, pairs, ALL, int(hits.sum()), len(hits))]
    for name, labels in (groups or {}).items():
        for group in GROUPS[name]:
            own = hits[np.array(labels) == group]
            if len(own):
                label = f"{name} {group}"
                scores.append(Score(question, language, pairs, label, int(own.sum()), len(own)))
    return scores
