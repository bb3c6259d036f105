"""Scenes in words: a small grammar with paraphrases, in English and in Chinese.

Captions name colour, shape, count, relation and (sometimes) texture. They never name the place of
a thing, its size or the background: what a model knows about these it has learned without words.
"""

from __future__ import annotations

import numpy as np

from miniclip.world.scenes import SHAPES, Scene, Thing, relation_of

LANGUAGES = ("en", "zh")
CHINESE_SHARE = 0.35  # of the captions of training
NAME_TEXTURE = 0.4  # how often a caption names the texture

PLURALS = {shape: shape + "s" for shape in SHAPES} | {"cross": "crosses"}
NUMBERS = {1: "one", 2: "two", 3: "three"}

ZH_COLOURS = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "cyan": "青色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
    "black": "黑色",
}
ZH_SHAPES = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "diamond": "菱形",
    "star": "星形",
    "heart": "心形",
    "cross": "十字",
    "crescent": "月牙",
    "arrow": "箭头",
    "drop": "水滴",
    "house": "房子",
    "flower": "花朵",
}
ZH_TEXTURES = {
    "solid": "实心的",
    "outlined": "空心的",
    "striped": "带条纹的",
    "dotted": "带圆点的",
}
ZH_NUMBERS = {1: "一个", 2: "两个", 3: "三个"}
ZH_SIDES = {"above": "上面", "below": "下面", "left": "左边", "right": "右边"}
EN_SIDES = {
    "above": ("above", "on top of"),
    "below": ("below", "under"),
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
}

# {} is the thing with its article ("a red circle"), {bare} the same without, {colour}, {shape}.
SINGLE = {
    "en": (
        "{}",
        "{}",
        "{bare}",
        "one {bare}",
        "a picture of {}",
        "a photo of {}",
        "a drawing of {}",
        "there is {}",
        "{a_shape} that is {colour}",
        "the {shape} is {colour}",
    ),
    "zh": (
        "{}",
        "{}",
        "{bare}",
        "图中有{}",
        "这是{}",
        "这个{shape}是{colour}的",
    ),
}


def name_pair(colour: str, shape: str, language: str = "en") -> str:
    """The plain name of a pair: "a red circle", "一个红色的圆形"."""
    if language == "zh":
        return f"一个{ZH_COLOURS[colour]}的{ZH_SHAPES[shape]}"
    return with_article(f"{colour} {shape}")


def with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def caption(scene: Scene, rng: np.random.Generator, language: str | None = None) -> str:
    """One true sentence about a scene, chosen by chance. language: "en", "zh", None: either."""
    if language is None:
        language = "zh" if rng.random() < CHINESE_SHARE else "en"
    if language not in LANGUAGES:
        raise ValueError(f"language: got {language!r}, expected one of {', '.join(LANGUAGES)}")
    things = scene.things
    if scene.kind == "single":
        return describe_single(things[0], rng, language)
    if scene.kind == "count":
        return describe_count(things, rng, language)
    if scene.kind == "relation":
        return describe_relation(things[0], things[1], rng, language)
    return list_things(things, rng, language)


def describe_single(thing: Thing, rng: np.random.Generator, language: str) -> str:
    sentence = _any(SINGLE[language], rng)
    textured = rng.random() < NAME_TEXTURE
    bare = bare_name(thing, textured, language)
    if language == "zh":
        words = {"colour": ZH_COLOURS[thing.colour], "shape": ZH_SHAPES[thing.shape]}
        return sentence.format(f"一个{bare}", bare=bare, **words)
    words = {"colour": thing.colour, "shape": thing.shape, "a_shape": with_article(thing.shape)}
    return sentence.format(with_article(bare), bare=bare, **words)


def bare_name(thing: Thing, textured: bool, language: str, plural: bool = False) -> str:
    """ "striped red circle", "带条纹的红色圆形"; without texture "红色的圆形"."""
    if language == "zh":
        colour, shape = ZH_COLOURS[thing.colour], ZH_SHAPES[thing.shape]
        return f"{ZH_TEXTURES[thing.texture]}{colour}{shape}" if textured else f"{colour}的{shape}"
    shape = PLURALS[thing.shape] if plural else thing.shape
    return f"{thing.texture} {thing.colour} {shape}" if textured else f"{thing.colour} {shape}"


def describe_count(things: tuple[Thing, ...], rng: np.random.Generator, language: str) -> str:
    """ "three green stars", "三个绿色的星形"."""
    return name_count(things[0], len(things), language, textured=bool(rng.random() < NAME_TEXTURE))


def name_count(thing: Thing, count: int, language: str, textured: bool = False) -> str:
    bare = bare_name(thing, textured, language, plural=count > 1)
    return f"{ZH_NUMBERS[count]}{bare}" if language == "zh" else f"{NUMBERS[count]} {bare}"


def describe_relation(a: Thing, b: Thing, rng: np.random.Generator, language: str) -> str:
    """Where one of two things is, seen from the other; either may come first."""
    if rng.random() < 0.5:
        a, b = b, a
    return name_relation(a, relation_of(a, b), b, language, int(rng.integers(2)))


def name_relation(a: Thing, relation: str, b: Thing, language: str, wording: int = 0) -> str:
    """ "a red circle above a blue square", "红色的圆形在蓝色的正方形的上面"."""
    if language == "zh":
        return f"{short_name(a, 'zh')}在{short_name(b, 'zh')}的{ZH_SIDES[relation]}"
    return f"{short_name(a)} {EN_SIDES[relation][wording]} {short_name(b)}"


def short_name(thing: Thing, language: str = "en") -> str:
    bare = bare_name(thing, False, language)
    return bare if language == "zh" else with_article(bare)


def list_things(things: tuple[Thing, ...], rng: np.random.Generator, language: str) -> str:
    """All things, in any order: "a red circle, a blue square and a green star"."""
    order = rng.permutation(len(things))
    names = [short_name(things[int(i)], language) for i in order]
    if language == "zh":
        return "、".join(names[:-1]) + "和" + names[-1]
    return ", ".join(names[:-1]) + " and " + names[-1]


def _any(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
