"""`draw`: the things that were asked for, the scenes of a seed, and files that name them."""

import csv

import numpy as np
import pytest
from PIL import Image

from miniclip.tasks import draw
from miniclip.world.captions import caption
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import COLOURS, SHAPES, TRAINING_WORLD, make_scene, single_world


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a red circle", ("red", "circle")),
        ("blue star", ("blue", "star")),
        ("  The  GREEN\tHouse ", ("green", "house")),
        ("an orange arrow", ("orange", "arrow")),
    ],
)
def test_things_are_a_colour_and_a_shape(text, pair):
    assert draw.parse_thing(text) == pair


@pytest.mark.parametrize(
    "text", ["", "a", "red", "circle", "circle red", "red sofa", "plaid circle", "red red circle",
             "big red circle", "red circle circle", "red circle too"],
)  # fmt: skip
def test_other_things_are_refused(text, tmp_path):
    with pytest.raises(ValueError) as error:
        draw.draw_things(["red star", text], tmp_path / "new")
    assert str(error.value) == (
        f"thing: got {text!r}, expected a colour ({', '.join(COLOURS)}) and a shape "
        f"({', '.join(SHAPES)}), such as 'red circle'"
    )
    assert not (tmp_path / "new").exists()


def pixels(picture):
    return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(("seed", "used"), [(None, 3_000_003), (5, 5)])
def test_a_picture_of_each_thing(tmp_path, seed, used):
    """256 pixels wide, each drawn as its own scene, in a folder that may be there already."""
    folder = tmp_path / "new" / "folder"
    more = {} if seed is None else {"seed": seed}
    for _ in range(2):
        paths = draw.draw_things(["a red circle", "Blue star"], folder, **more)
        assert paths == [folder / "red-circle.png", folder / "blue-star.png"]
    for number, (path, pair) in enumerate(zip(paths, [("red", "circle"), ("blue", "star")],
                                              strict=True)):  # fmt: skip
        scene = make_scene(single_world((pair,)), used, number)
        with Image.open(path) as picture:
            assert picture.size == (256, 256)
            np.testing.assert_array_equal(pixels(picture), pixels(draw_scene(scene, 256)))


def test_the_same_thing_again_is_another_picture(tmp_path):
    paths = draw.draw_things(["red circle", "a red star", "the RED circle", "red circle"], tmp_path)
    assert [path.name for path in paths] == [
        "red-circle.png", "red-star.png", "red-circle-2.png", "red-circle-3.png"
    ]  # fmt: skip
    assert len({path.read_bytes() for path in paths}) == 4


@pytest.mark.parametrize(("seed", "used"), [(None, 3_000_003), (5, 5)])
def test_scenes_and_their_captions(tmp_path, seed, used):
    folder = tmp_path / "new" / "folder"
    more = {} if seed is None else {"seed": seed}
    for _ in range(2):
        path = draw.draw_scenes(3, folder, **more)
    assert path == folder / "captions.csv"
    scenes = [make_scene(TRAINING_WORLD, used, number) for number in range(3)]
    words = [caption(s, np.random.default_rng([used, i, 3])) for i, s in enumerate(scenes)]
    names = ["scene-0000.png", "scene-0001.png", "scene-0002.png"]
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "caption"], *map(list, zip(names, words, strict=True))
        ]  # fmt: skip
    assert path.read_bytes().count(b"\n") == 4
    assert b"\r" not in path.read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == ["captions.csv", *names]
    for name, scene in zip(names, scenes, strict=True):
        with Image.open(folder / name) as picture:
            np.testing.assert_array_equal(pixels(picture), pixels(draw_scene(scene, 256)))


def test_one_scene_is_enough_and_none_is_not(tmp_path):
    draw.draw_scenes(1, tmp_path / "one")
    assert (tmp_path / "one" / "scene-0000.png").is_file()
    for count in (0, -3):
        with pytest.raises(ValueError, match=rf"^scenes: got {count}, expected at least 1$"):
            draw.draw_scenes(count, tmp_path / "none")
    assert not (tmp_path / "none").exists()
