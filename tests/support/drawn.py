"""Drawings for tests that need pictures with captions."""

from miniclip.tasks.draw import parse_thing
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import make_scene, single_world

COLOURS = ("red", "green", "blue", "yellow")
CAPTIONS = [
    f"a {colour} {shape}" for colour in COLOURS for shape in ("circle", "square", "triangle")
]


def draw(caption, rng, size=64):
    """A picture of "a red circle", size x size pixels; place and texture by chance."""
    world = single_world((parse_thing(caption),))
    return draw_scene(make_scene(world, int(rng.integers(1 << 30)), 0), size)
