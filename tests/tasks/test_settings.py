"""What a configuration file may say of pictures, and what of it is refused by name."""

import dataclasses

import pytest

from miniclip.emoji.sources import STYLES
from miniclip.inputs.augment import Augment
from miniclip.inputs.preprocess import Transform
from miniclip.models import CLIPConfig, TextConfig, VisionConfig
from miniclip.tasks.settings import DataSettings, read_settings
from miniclip.training.augmented import Ramp
from miniclip.training.wording import Wording

TINY = """
vocabulary = 560
[model]
embed_dim = 16
vision = {image_resolution = 32, layers = 1, width = 32, heads = 2, patch_size = 8}
text = {context_length = 48, width = 32, heads = 2, layers = 1}
[recipe]
steps = 4
batch = 8
"""


def read(tmp_path, more):
    path = tmp_path / "x.toml"
    path.write_text(TINY + more)
    return read_settings(path)


def test_mini_emoji():
    settings = read_settings("mini-emoji")
    vision = VisionConfig(64, (1, 1, 1, 1), 24, 8, pool="average")
    text = TextConfig(context_length=32, vocab_size=3000, width=128, heads=4, layers=2)
    assert settings.config == CLIPConfig(128, vision, text)
    assert settings.new_transform() == Transform(
        size=64, resize_mode="longest", fill=255, alpha="white"
    )
    only = settings.data.only
    assert only["split"] == ["train"]
    assert only["style"] == [style.name for style in STYLES if style.trained]
    assert settings.data.augment == Augment()
    assert settings.data.held_out == 0.0


def test_columns_are_named_in_small_letters_as_tables_are_read(tmp_path):
    only = read(tmp_path, "[data]\nonly = {' Style' = ['a'], number = [0]}").data.only
    assert only == {"style": ["a"], "number": [0]}


def test_without_the_section_pictures_are_as_they_are(tmp_path):
    settings = read(tmp_path, "")
    assert settings.data is None
    assert settings.new_transform() == Transform(size=32)


def test_every_field_arrives(tmp_path):
    settings = read(
        tmp_path,
        """
[transform]
resize_mode = "squash"
mean = [0.5, 0.5, 0.5]
[data]
held_out = 0.25
about = "cats"
side = 50
only = {style = ["a"]}
augment = {hue = 0.2}
ramp = {start = 0.4}
captions = {name = 2.0, templates = {en = ["a {}"]}}
""",
    )
    assert settings.new_transform() == Transform(size=32, resize_mode="squash", mean=(0.5,) * 3)
    assert settings.data == DataSettings(
        {"style": ["a"]},
        0.25,
        "cats",
        50,
        Augment(hue=0.2),
        Ramp(start=0.4),
        Wording(name=2.0, templates={"en": ("a {}",)}),
    )
    assert set(vars(settings.data)) == {field.name for field in dataclasses.fields(DataSettings)}
    assert read(tmp_path, "[data]").data == DataSettings()
    assert DataSettings().augment is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "[data]\ncolour = 1",
            "x.toml: data.colour: expected only, held_out, about, side, augment",
        ),
        ("[data.augment]\nhues = 1", "x.toml: data.augment.hues: expected smallest, largest"),
        ("[data.augment]\nhue = -1", "x.toml: data.augment.hue: got -1, expected a number from 0"),
        ("[data]\naugment = true", "x.toml: data.augment: got True, expected a table of settings"),
        ("[data.ramp]\nup = 2", "x.toml: data.ramp.up: got 2, expected a number from 0 to 1"),
        ("[data.captions]\nname = -1", "x.toml: data.captions.name: got -1"),
        ("[data.captions]\nnames = 1", "x.toml: data.captions.names: expected languages, name"),
        ("[data]\nonly = {style = 'noto'}", "x.toml: data.only: got .*, expected lists of values"),
        ("[data]\nonly = 3", "x.toml: data.only: got 3, expected lists of values"),
        ("[data]\nside = 0", "x.toml: data.side: got 0, expected a whole number from 1 on"),
        ("[data]\nside = 1.5", "x.toml: data.side: got 1.5, expected a whole number"),
        ("[data]\nabout = 3", "x.toml: data.about: got 3, expected a text"),
        ("[data]\nheld_out = 1.0", "x.toml: data.held_out: got 1.0, expected a share from 0"),
        (
            "[data.captions]\nlanguages = ['en']",
            "x.toml: data.captions.languages: got .*, expected one",
        ),
        (
            "[transform]\nsize = 99",
            "x.toml: transform.size: expected none, model.vision.image_reso",
        ),
        ("[transform]\n sizes = 3", "x.toml: transform.sizes: expected size, mean, std"),
        ('[transform]\nalpha = "red"', "x.toml: alpha: got 'red', expected one of drop, white"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, more, message):
    with pytest.raises(ValueError, match=r".*" + message.replace("(", r"\(")):
        read(tmp_path, more)
