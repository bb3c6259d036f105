"""What a scene says of itself: where things are, and where they are seen from each other."""

from dataclasses import replace

import numpy as np
import pytest
from fake_models import seen_from

from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import (
    RELATIONS,
    SHAPES,
    STYLES,
    TEXTURES,
    TRAINING_WORLD,
    World,
    make_scene,
    single_world,
)

SIZE = 256


def drawn_box(scene):
    """Left, top, right, bottom of the pixels that differ from the same scene without things."""
    bare = replace(scene, things=())
    pixels, ground = (np.asarray(draw_scene(s, SIZE), np.int32) for s in (scene, bare))
    rows, columns = np.nonzero(np.abs(pixels - ground).sum(axis=2) > 60)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_is_drawn_in_its_box(shape):
    """Whatever its angle, texture and place; and the box is not much too large."""
    found = []
    for number in range(40):
        world = single_world((("black", shape),), backgrounds=("plain",), textures=TEXTURES[:1])
        scene = make_scene(world, 1, number)
        (thing,) = scene.things
        box, drawn = np.array(thing.box(SIZE)), np.array(drawn_box(scene))
        outside = np.concatenate([box[:2] - drawn[:2], drawn[2:] - box[2:]])
        assert outside.max() <= 1.5, (number, box, drawn)  # pixels, of which Pillow paints halves
        found.append(outside / (thing.radius * SIZE))
    assert np.min(found) > -0.6
    assert np.max(found, axis=1).mean() > -0.35


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("style", STYLES)
def test_however_it_is_drawn(texture, style):
    """An outline and a sketched line are as thick as a sixth of the thing, half of it outside."""
    world = single_world((("black", "square"),), backgrounds=("plain",), textures=(texture,))
    for number in range(10):
        scene = replace(make_scene(world, 2, number), style=style)
        (thing,) = scene.things
        box, drawn = np.array(thing.box(SIZE)), np.array(drawn_box(scene))
        reach = np.concatenate([box[:2] - drawn[:2], drawn[2:] - box[2:]]).max()
        assert reach <= 0.2 * thing.radius * SIZE


def test_relations_are_those_that_one_sees():
    """Of all pairs of things, both ways round; read from the places in another way."""
    seen = set()
    for number in range(300):
        scene = make_scene(TRAINING_WORLD, 4, number)
        things, relations = scene.things, scene.relations()
        assert len(relations) == len(things) * (len(things) - 1)
        assert len({(i, j) for i, _, j in relations}) == len(relations)
        for i, relation, j in relations:
            assert i != j
            assert relation == seen_from(things[i], things[j])
            seen.add(relation)
    assert seen == set(RELATIONS)


class Least(np.random.Generator):
    """Draws the least number that there is."""

    def random(self, *arguments, **more):
        return 0.0


def test_a_kind_that_has_no_share_is_never_drawn(monkeypatch):
    """Not even by the least random number."""
    least = Least(np.random.PCG64(0))
    monkeypatch.setattr(np.random, "default_rng", lambda seed: least)
    assert make_scene(World(mix=(0.0, 1.0, 0.0, 0.0)), 0, 0).kind == "count"
    assert make_scene(World(mix=(1.0, 0.0, 0.0, 0.0)), 0, 0).kind == "single"
