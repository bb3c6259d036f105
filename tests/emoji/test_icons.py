"""Which icon of a set shows which thing, and its SVG."""

import io
import json

import numpy as np
import pytest
from emoji_packages import CAT, LION, characters, write_packages
from PIL import Image

from miniclip.emoji import drawing
from miniclip.emoji.concepts import read_concepts
from miniclip.emoji.icons import (
    Icon,
    find_icons,
    icons_by_name,
    look_up,
    read_names,
    slug,
    svg_of,
    unique,
)
from miniclip.emoji.packages import PackageError, Packages
from miniclip.emoji.sources import STYLES

STYLE = {style.name: style for style in STYLES}


def test_every_set_shows_its_things(tmp_path):
    packages = Packages(write_packages(tmp_path))
    called = read_names(packages, read_concepts(packages, ["en"]))
    found = {name: find_icons(packages, style, called) for name, style in STYLE.items()}
    cat = characters(CAT)
    for name, icons in found.items():
        assert Icon(name, cat, 0, "cat") in icons, name
        assert len(icons) == (3 if name == "fluent-emoji-flat" else 4), name  # no lion there
    assert [icon.name for icon in found["fxemoji"]] == ["red-heart", "cat", "dog", "lion"]


def test_names_are_looked_up_the_surest_first():
    called = [{"cat": "C", "two": None}, {"cat-face": "F"}, {"catface": "S", "two": "T"}, {}]
    assert look_up("cat", called) == ("C", 0, 0)
    assert look_up("cat-face", called) == ("F", 1, 0)
    assert look_up("catface", called) == ("S", 2, 0)
    assert look_up("cat-12", called) == ("C", 0, 12)
    assert look_up("two", called) == ("T", 2, 0)  # where sets do not agree, the next list decides
    assert look_up("dog", called) is None
    assert look_up("12", called) is None


def test_numbered_pictures_show_one_thing_and_other_names_of_it_none_twice():
    called = [{"cat": "C", "kitty": "C", "dog": "D"}, {"feline": "C"}]
    icons = icons_by_name(["dog-2", "dog-1", "kitty", "cat", "feline", "house"], "style", called)
    assert icons == [
        Icon("style", "C", 0, "cat"),
        Icon("style", "D", 0, "dog-1"),
        Icon("style", "D", 1, "dog-2"),
    ]


def test_a_name_of_two_things_means_none():
    pairs = [("cat", "C"), ("cat", "C"), ("two", "A"), ("two", "B"), ("other", "X")]
    assert unique(pairs, {"A", "B", "C"}) == {"cat": "C", "two": None}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Mrs. Claus", "mrs-claus"),
        ("man\u2019s shoe", "mans-shoe"),
        ("woman's boot", "womans-boot"),
        ("pi\xf1ata", "pinata"),
        ("flag: U.S.", "flag-u-s"),
    ],
)
def test_slug(name, expected):
    assert slug(name) == expected


def test_other_names_of_an_icon_count_unless_it_is_turned_over(tmp_path):
    def change(package, files):
        if package.name == "@iconify-json/noto":
            content = json.loads(files["icons.json"])
            content["aliases"] = {
                "kitty": {"parent": "cat"},
                "cat-to-the-left": {"parent": "cat", "hFlip": True},
                "nothing": {"parent": "gone"},
            }
            files["icons.json"] = json.dumps(content).encode()

    packages = Packages(write_packages(tmp_path, change))
    called = read_names(packages, read_concepts(packages, ["en"]))
    assert called[0]["kitty"] == characters(CAT)
    assert called[0]["red-heart"] == "\u2764"
    assert called[1]["lion-face"] == characters(LION)  # as Unicode calls it
    assert called[3]["lionface"] == characters(LION)
    assert "cat-to-the-left" not in called[0]


# ------------------------------------------------------------------------ the picture


CONTENT = {
    "prefix": "set",
    "icons": {
        "left": {"body": '<path fill="red" d="M0 0h4v8h-4z"/>'},
        "wide": {"body": '<path d="M2 0h16v8h-16z"/>', "left": 2, "width": 16},
        "top": {"body": '<path fill="red" d="M0 0h8v4h-8z"/>', "height": 16},
    },
    "aliases": {
        "right": {"parent": "left", "hFlip": True},
        "bottom": {"parent": "top", "vFlip": True},
        "same": {"parent": "left"},
        "turned": {"parent": "left", "rotate": 1},
        "lost": {"parent": "gone"},
    },
    "width": 8,
    "height": 8,
}


def drawn(name):
    data = drawing.draw(*svg_of(CONTENT, name), name)
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("name", "opaque"),
    [
        ("left", np.s_[:, :64]),
        ("same", np.s_[:, :64]),
        ("right", np.s_[:, 64:]),
        ("top", np.s_[:32, :]),
        ("bottom", np.s_[96:, :]),
        ("wide", np.s_[:, :]),
    ],
)
def test_where_an_icon_is_drawn(name, opaque):
    pixels = drawn(name)
    expected = np.zeros(pixels.shape[:2], bool)
    expected[opaque] = True
    assert ((pixels[..., 3] == 255) == expected).all()


def test_the_longer_side_has_128_pixels():
    assert drawn("left").shape == (128, 128, 4)
    assert drawn("wide").shape == (64, 128, 4)
    assert drawn("top").shape == (128, 64, 4)


def test_icons_without_a_size_have_iconifys():
    svg, width, height = svg_of({"icons": {"a": {"body": ""}}}, "a")
    assert (width, height) == (16, 16)
    assert 'viewBox="0 0 16 16"' in svg


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "set: has no icon 'gone'"),
        ("lost", "set: has no icon 'lost'"),
        ("turned", "set: 'turned' has 'rotate', not known"),
    ],
)
def test_what_is_not_there_is_named(name, message):
    with pytest.raises(PackageError, match=message):
        svg_of(CONTENT, name)


@pytest.mark.parametrize(
    ("svg", "message"),
    [
        ("<svg", "noto: cat: cannot be drawn"),
        ('<svg xmlns="http://www.w3.org/2000/svg"/>', "noto: cat: draws nothing that can be seen"),
        (
            '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8">'
            '<path opacity="0.03" d="M0 0h8v8h-8z"/></svg>',
            "noto: cat: draws nothing",
        ),
    ],
)
def test_a_broken_svg_is_named(svg, message):
    with pytest.raises(PackageError, match=message):
        drawing.draw(svg, 8, 8, "noto: cat")


def test_a_faint_picture_is_one():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8">'
    drawing.draw(f'{svg}<path opacity="0.04" d="M0 0h8v8h-8z"/></svg>', 8, 8, "faint")


def test_without_resvg_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(ImportError, match=r"resvg_py: not installed.*pip install resvg-py"):
        drawing.check_renderer()
