"""How well a CLIP names emoji: `miniclip evaluate MODEL --data FOLDER` of `miniclip data emoji`.

    name            which of all 1,652 names fits a picture?                         chance 1/1652
    held-out name   ... among the names of the 169 things never trained on           chance 1/169
    text to image   which of a style's pictures fits a name?                         R@1, R@5, R@10
    image to text   as "name", first 1, 5 and 10
    few examples    the nearest mean of k pictures of each name, in other styles, beside zero-shot

What fits as well as the right answer stands before it: ties count against the model.

Source: zero-shot as in CLIP section 3.1; R@k as in Karpathy & Fei-Fei 2015 (arXiv 1412.2306); few
examples against zero-shot as in CLIP figure 6, by nearest means as in Snell et al. 2017 (arXiv
1703.05175).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from miniclip.ops import l2_normalize
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tables import markdown_table, text_table
from miniclip.tasks.emoji_set import (
    SPLITS,
    TEMPLATES,
    UNSEEN,
    EmojiQuestions,
    embed_names,
    embed_style,
    is_composed,
    words_heard,
)
from miniclip.tasks.evaluation_result import Counted, Table, percent

AMONG = (1, 5, 10)
SHOTS = (1, 2, 4, 8)
DRAWS = 5  # of few examples: which they are matters
ALL = "all"


@dataclass(frozen=True)
class EmojiScore(Counted):
    """How many of `total` questions have the right answer among the first `among` of `choices`.

    question: "name", "held-out name", "text to image", or "k examples". style, language, split.
    group: "all", a group of emoji, "composed" or "unheard words".
    """

    question: str
    style: str
    language: str
    split: str
    group: str
    among: int
    choices: int
    right: int
    total: int
    prompts: str = "name"  # or "ensemble"

    @property
    def chance(self) -> float:
        return min(1.0, self.among / self.choices)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | self.shares() | {"chance": self.chance}


@dataclass(frozen=True)
class EmojiEvaluation:
    """Every score of a model on a set of emoji."""

    model: str
    source: str
    scores: tuple[EmojiScore, ...]

    def find(self, **wanted: Any) -> list[EmojiScore]:
        """The scores whose fields have these values."""
        return [s for s in self.scores if all(getattr(s, k) == v for k, v in wanted.items())]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"scores": [score.as_dict() for score in self.scores]}

    def as_text(self) -> str:
        return "\n\n".join(f"{title}\n{text_table(*table)}" for title, table in self.tables())

    def as_markdown(self) -> str:
        return "\n\n".join(f"{title}\n\n{markdown_table(*t)}" for title, t in self.tables())

    def tables(self) -> list[tuple[str, Table]]:
        titles = dict.fromkeys((s.question, s.language, s.prompts) for s in self.scores)
        return [
            (
                f"{question}, {language}" + (f", {prompts}" if prompts != "name" else ""),
                table_of(self.find(question=question, language=language, prompts=prompts)),
            )
            for question, language, prompts in titles
        ]


def table_of(scores: Sequence[EmojiScore]) -> Table:
    """A line for each style, split and group; a column for each number of answers that count."""
    among = sorted({s.among for s in scores})
    headings = ["style", "split", "group", *(f"first {k}" for k in among), "95 %", "asked"]
    rows: dict[tuple[str, str, str], dict[int, EmojiScore]] = {}
    for s in scores:
        rows.setdefault((s.style, s.split, s.group), {})[s.among] = s
    lines = []
    for key, of in rows.items():
        first = of[min(of)]
        low, high = first.interval
        shares = [percent(of[k].share) if k in of else "" for k in among]
        lines.append([*key, *shares, f"{percent(low)} to {percent(high)}", str(first.total)])
    return headings, lines


# ------------------------------------------------------------------------ the questions


def evaluate_emoji(
    pipeline: Pipeline,
    questions: EmojiQuestions,
    styles: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
) -> EmojiEvaluation:
    """Ask a loaded model all questions. styles, languages: some of the set's; None: all.

    Raises ValueError naming the argument, and for embeddings that are no numbers.
    """
    styles = chosen("styles", styles, list(questions.pictures))
    languages = chosen("languages", languages, questions.languages)
    images = {style: embed_style(pipeline, questions, style) for style in styles}
    scores: list[EmojiScore] = []
    for language in languages:
        names = questions.names(language)
        texts = embed_names(pipeline, names)
        together = embed_names(pipeline, names, TEMPLATES.get(language, ("{}",)))
        for style in styles:
            scores += score_names(questions, style, language, images[style], texts)
            scores += score_names(questions, style, language, images[style], together, "ensemble")
            scores += score_pictures(questions, style, language, images[style], texts)
        if UNSEEN in styles and language == "en":
            scores += score_held_out(questions, UNSEEN, images[UNSEEN], texts)
    if UNSEEN in styles:
        scores += score_examples(questions, images, embed_names(pipeline, questions.names("en")))
    return EmojiEvaluation(pipeline.name, str(questions.folder), tuple(scores))


def chosen(name: str, wanted: Sequence[str] | None, known: list[str]) -> list[str]:
    """The wanted ones. ValueError for one that there is not."""
    if wanted is None:
        return known
    for one in wanted:
        if one not in known:
            raise ValueError(f"{name}: got {one!r}, expected some of {', '.join(known)}")
    return list(wanted)


def score_names(
    questions: EmojiQuestions,
    style: str,
    language: str,
    images: Array,
    texts: Array,
    prompts: str = "name",
) -> list[EmojiScore]:
    """Which of all names fits a picture? By split, and in the unseen style by group."""
    numbers = questions.numbers(style)
    places = rank(images @ texts.T, np.array(numbers))  # (N,)
    scores: list[EmojiScore] = []
    named = has_name(texts)
    for split in SPLITS:
        of_split = [
            i for i, n in enumerate(numbers) if named[n] and questions.things[n].split == split
        ]
        groups = {ALL: of_split}
        if style == UNSEEN and split == "train" and prompts == "name":
            for i in of_split:
                groups.setdefault(questions.things[numbers[i]].group, []).append(i)
        for group, places_of in groups.items():
            scores += [
                EmojiScore(
                    "name", style, language, split, group, k, int(named.sum()),
                    int((places[places_of] <= k).sum()), len(places_of), prompts,
                )
                for k in AMONG
                if places_of
            ]  # fmt: skip
    return scores


def score_pictures(
    questions: EmojiQuestions, style: str, language: str, images: Array, texts: Array
) -> list[EmojiScore]:
    """Which of the style's pictures of trained things fits the name of one?"""
    numbers = questions.numbers(style)
    named = has_name(texts)
    trained = [
        i for i, n in enumerate(numbers) if named[n] and questions.things[n].split == "train"
    ]
    if not trained:
        return []
    cosine = texts[[numbers[i] for i in trained]] @ images[trained].T  # (K, K)
    places = rank(cosine, np.arange(len(trained)))
    return [
        EmojiScore(
            "text to image", style, language, "train", ALL, k, len(trained),
            int((places <= k).sum()), len(trained),
        )
        for k in AMONG
    ]  # fmt: skip


def score_held_out(
    questions: EmojiQuestions, style: str, images: Array, texts: Array, language: str = "en"
) -> list[EmojiScore]:
    """Which of the held-out names fits a held-out thing? Names of known words apart from others."""
    numbers = questions.numbers(style)
    held = [i for i, n in enumerate(numbers) if questions.things[n].split == "held-out"]
    choices = [n for n, thing in enumerate(questions.things) if thing.split == "held-out"]
    if not held:
        return []
    truth = np.array([choices.index(numbers[i]) for i in held])
    places = rank(images[held] @ texts[choices].T, truth)
    heard = words_heard(questions, language)
    composed = np.array(
        [is_composed(questions.things[numbers[i]], heard, language) for i in held], bool
    )
    groups = {ALL: np.ones(len(held), bool), "composed": composed, "unheard words": ~composed}
    return [
        EmojiScore(
            "held-out name", style, language, "held-out", group, k, len(choices),
            int((places[which] <= k).sum()), int(which.sum()),
        )
        for group, which in groups.items()
        for k in AMONG
        if which.any()
    ]  # fmt: skip


def score_examples(
    questions: EmojiQuestions, images: dict[str, Array], texts: Array, seed: int = 0
) -> list[EmojiScore]:
    """The unseen style's pictures by the nearest mean of k pictures in other styles.

    Which ones they are matters, so that a score is the mean of several draws.

    Only things that have enough pictures are asked about, the same for every k, and by zero-shot
    among the same names.
    """
    places = {s: {n: i for i, n in enumerate(questions.numbers(s))} for s in images}
    others = [s for s in images if s != UNSEEN]
    pictures = {
        n: [(s, places[s][n]) for s in others if n in places[s]]
        for n in questions.numbers(UNSEEN, "train")
    }
    asked = [n for n, found in pictures.items() if len(found) >= max(SHOTS)]
    if not asked:
        return []
    queries = images[UNSEEN][[places[UNSEEN][n] for n in asked]]
    truth = np.arange(len(asked))

    def score(question: str, ranks: Array) -> EmojiScore:
        right = round(float((ranks <= 1).mean()) * len(asked))  # of several draws, the mean
        return EmojiScore(question, UNSEEN, "en", "train", ALL, 1, len(asked), right, len(asked))

    scores = [score("0 examples", rank(queries @ texts[asked].T, truth))]
    rng = np.random.default_rng(seed)
    for k in SHOTS:
        ranks = []
        for _ in range(DRAWS):
            means = [mean_of(images, pictures[n], k, rng) for n in asked]
            ranks.append(rank(queries @ np.stack(means).T, truth))
        scores.append(score(f"{k} examples", np.stack(ranks)))
    return scores


def mean_of(
    images: dict[str, Array], found: list[tuple[str, int]], k: int, rng: np.random.Generator
) -> Array:
    """The unit mean of k of a thing's pictures, (E,)."""
    some = [found[i] for i in rng.permutation(len(found))[:k]]
    mean: Array = l2_normalize(np.mean([images[s][i] for s, i in some], axis=0)[None])[0][0]
    return mean


def has_name(texts: Array) -> Array:
    """(N, E) -> (N,): which things have a name in the language of these embeddings."""
    named: Array = np.logical_not(np.isnan(texts).any(axis=1))
    return named


def rank(cosine: Array, truth: Array) -> Array:
    """(N, K) and N columns -> (N,): the right answer's place, 1 the best; ties count against it."""
    right = cosine[np.arange(len(truth)), truth][:, None]
    places: Array = (cosine >= right).sum(axis=1)
    return places
