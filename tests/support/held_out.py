"""Whether a text names a pair that training must not name: found in the words, not in the scene."""

from miniclip.world.captions import ZH_COLOURS, ZH_SHAPES
from miniclip.world.scenes import HELD_OUT


def names_held_out(text):
    """Whether a text, English or Chinese, names a held-out pair: colour right before shape, say."""
    for colour, shape in HELD_OUT:
        zh_colour, zh_shape = ZH_COLOURS[colour], ZH_SHAPES[shape]
        english = (f"{colour} {shape}", f"{shape} is {colour}", f"{shape} that is {colour}")
        chinese = (f"{zh_colour}的{zh_shape}", f"{zh_colour}{zh_shape}", f"{zh_shape}是{zh_colour}")
        if any(name in text for name in (*english, *chinese)):
            return True
    return False
