"""What robustness changes of a picture, by how much, whom it asks, and how it shows the answers."""

import importlib
import io

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image, ImageFilter

from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import HELD_OUT, SEEN, make_scene, single_world

module = importlib.import_module("miniclip.tasks.robustness")  # not the function of that name
SCENES = [make_scene(single_world(SEEN), 4, number) for number in range(4)]


def test_the_documented_changes():
    assert module.STRENGTHS == {
        "none": ("",), "noise": (0.05, 0.1, 0.2), "blur": (1, 2, 3), "jpeg": (50, 20, 10),
        "occlusion": (0.1, 0.2, 0.3), "background": ("dark", "checkered"), "style": ("sketch",),
    }  # fmt: skip
    assert set(module.PICTURE_CHANGES) == {"none", "noise", "blur", "jpeg", "occlusion"}


# ------------------------------------------------------------------------ the changes


def numbers(picture):
    return np.asarray(picture, float)


def random_picture(seed=0, size=(40, 24)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def test_noise_is_added_in_units_of_the_whole_range():
    picture = random_picture()
    noise = np.random.default_rng(3).standard_normal((24, 40, 3), np.float32)
    for strength in (0.02, 0.5):
        noisy = module.add_noise(picture, strength, np.random.default_rng(3))
        expected = np.clip(np.rint(numbers(picture) + 255 * strength * noise), 0, 255)
        assert np.abs(numbers(noisy) - expected).max() <= 1  # float32 may round a half otherwise
        assert (numbers(noisy) == expected).mean() > 0.999
        assert noisy.mode == "RGB"
    for shade in (0, 255):  # nothing turns over at either end, and both ends are reached
        flat = Image.new("RGB", (32, 32), (shade,) * 3)
        noisy = numbers(module.add_noise(flat, 0.1, np.random.default_rng(0)))
        assert np.abs(noisy - shade).max() < 150
        assert (noisy == shade).mean() == pytest.approx(0.5, abs=0.05)


def test_blur_and_jpeg_are_pillows():
    picture = random_picture()
    for strength in (1, 2.5):
        blurred = picture.filter(ImageFilter.GaussianBlur(strength))
        np.testing.assert_array_equal(
            numbers(module.blur(picture, strength, None)), numbers(blurred)
        )
    for quality in (10, 90):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        with Image.open(file) as written:
            np.testing.assert_array_equal(
                numbers(module.compress(picture, quality, None)), numbers(written)
            )
    assert module.unchanged(picture, 1, None) is picture


@pytest.mark.parametrize(("share", "side"), [(0.88, 60), (0.25, 32), (0.1, 20)])
def test_a_grey_square_is_anywhere_inside(share, side):
    """At every place, up to both borders; what is not covered stays."""
    picture = random_picture(size=(64, 64))
    corners = set()
    for seed in range(400):
        covered = module.occlude(picture, share, np.random.default_rng(seed))
        changed = (numbers(covered) != numbers(picture)).any(axis=2)
        grey = (numbers(covered) == 128).all(axis=2)
        rows, columns = np.nonzero(grey)
        top, left = rows.min(), columns.min()
        square = np.zeros((64, 64), bool)
        square[top : top + side, left : left + side] = True
        np.testing.assert_array_equal(grey, square)
        assert not (changed & ~square).any()
        corners.add((int(left), int(top)))
    last = 64 - side
    for axis in (0, 1):
        reached = {corner[axis] for corner in corners}
        assert min(reached) == 0
        assert max(reached) == last
    if side == 60:
        assert len(corners) == 25


@pytest.mark.parametrize(
    ("change", "strength"), [("noise", 0.1), ("occlusion", 0.2), ("jpeg", 20), ("blur", 2)]
)
def test_a_change_draws_from_the_scenes_own_numbers(change, strength):
    for scene in SCENES:
        rng = np.random.default_rng([*scene.seed, 5])
        expected = module.PICTURE_CHANGES[change](draw_scene(scene), strength, rng)
        got = module.draw_changed(scene, change, strength)
        np.testing.assert_array_equal(numbers(got), numbers(expected))
        assert (got.mode, got.size) == ("RGB", (64, 64))


def test_a_scene_changes_its_background_or_its_style():
    """And nothing else of it."""
    for change, strength in (("background", "dark"), ("background", "checkered"),
                             ("style", "sketch")):  # fmt: skip
        world = single_world(SEEN)
        for scene in SCENES:
            fields = {**vars(scene), change: strength}
            expected = draw_scene(type(scene)(**fields))
            got = module.draw_changed(scene, change, strength)
            np.testing.assert_array_equal(numbers(got), numbers(expected))
            assert (numbers(got) != numbers(draw_scene(scene))).any()
        assert world.style == "flat"
    with pytest.raises(ValueError) as error:
        module.draw_changed(SCENES[0], "fog", 1)
    assert str(error.value) == (
        "change: got 'fog', expected one of none, noise, blur, jpeg, occlusion, background, style"
    )


# ------------------------------------------------------------------------ the questions


@pytest.mark.parametrize(
    ("arguments", "count", "seed"), [((), 600, 1_000_003), ((7,), 7, 1_000_003), ((7, 3), 7, 3)]
)
def test_the_same_scenes_are_asked_about_under_every_change(monkeypatch, arguments, count, seed):
    asked, drawn = [], []
    worlds = {single_world(SEEN): "seen", single_world(HELD_OUT): "held-out"}

    def make_scenes(world, *rest):
        asked.append((worlds[world], *rest))
        return worlds[world]

    def top1(pipeline, scenes, names, draw):
        assert (pipeline, names) == ("model", "names of model")
        draw("a scene")
        drawn.append((scenes, *drawn.pop()))
        return {"seen": 0.75, "held-out": 0.25}[scenes]

    monkeypatch.setattr(module, "make_scenes", make_scenes)
    monkeypatch.setattr(module, "embed_pairs", lambda pipeline: f"names of {pipeline}")
    monkeypatch.setattr(module, "top1", top1)
    monkeypatch.setattr(
        module, "draw_changed", lambda scene, change, strength: drawn.append((change, strength))
    )
    rows = module.robustness("model", *arguments)
    assert sorted(asked) == [("held-out", count, seed), ("seen", count, seed)]
    changes = [(change, s) for change, strengths in module.STRENGTHS.items() for s in strengths]
    assert drawn == [(pairs, *c) for c in changes for pairs in ("seen", "held-out")]
    assert [row.as_dict() for row in rows] == [
        {"change": c, "strength": s, "seen": 0.75, "held_out": 0.25, "count": count}
        for c, s in changes
    ]


@pytest.mark.parametrize("count", [0, -1, 1.5, "9"])
def test_some_scenes_are_needed(count):
    with pytest.raises(ValueError, match=rf"^count: got {count!r}, expected a whole number, at"):
        module.robustness(None, count)


def test_top_1_is_the_share_of_right_names(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "embed_scenes", lambda *given: asked.append(given) or "pictures")
    answers = [SCENES[0].things[0].pair, ("red", "nothing"), None, SCENES[3].things[0].pair]
    monkeypatch.setattr(module, "answer_pairs", lambda *given: asked.append(given) or answers)
    share = module.top1("model", SCENES, "names", "draw")
    assert (share, type(share)) == (0.5, float)
    assert asked == [("model", SCENES, "draw"), ("pictures", "names")]
    answers.pop()  # an answer is missing: no share of the others
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        module.top1("model", SCENES, "names", "draw")


# ------------------------------------------------------------------------ showing


def made_up(start):
    """Rows whose numbers all differ."""
    changes = [(change, s) for change, strengths in module.STRENGTHS.items() for s in strengths]
    return [
        module.RobustnessRow(change, s, start + i / 100, start / 2 + i / 100, 50)
        for i, (change, s) in enumerate(changes)
    ]


def test_rows_as_tables():
    assert module.as_text(made_up(0.5)[:3]).splitlines() == [
        "change  strength   seen  held-out",
        "none              50.0%     25.0%",
        "noise       0.05  51.0%     26.0%",
        "noise        0.1  52.0%     27.0%",
    ]
    assert module.as_markdown(made_up(0.5)[:2]).splitlines() == [
        "| change | strength | seen | held-out |",
        "| :-- | --: | --: | --: |",
        "| none |  | 50.0% | 25.0% |",
        "| noise | 0.05 | 51.0% | 26.0% |",
    ]


def test_the_figure_by_its_artists():
    """Panels, lines, ticks, colours, words: all that a reader goes by."""
    models = {"small": made_up(0.2), "large": made_up(0.5)}
    figure = module.figure_of(models)
    assert tuple(figure.get_size_inches()) == (10, 6)
    assert type(figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == [
        "noise", "blur", "jpeg", "occlusion", "background", "style"
    ]  # fmt: skip
    grid = panels[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 3)
    assert [axes.get_ylabel() for axes in panels] == ["zero-shot top-1", "", ""] * 2
    for axes in panels:
        assert axes.get_ylim() == (0, 1.04)
        assert axes.get_xmargin() == 0.1
        wanted = [(c, s) for c in ("none", axes.get_title()) for s in module.STRENGTHS[c]]
        ticks = ["none", *(str(s) for _, s in wanted[1:])]
        *lines, chance = axes.lines
        assert [line.get_label() for line in lines] == [
            "small, seen", "small, held out", "large, seen", "large, held out"
        ]  # fmt: skip
        for i, (name, rows) in enumerate(models.items()):
            for line, field, style in zip(
                lines[2 * i :], ("seen", "held_out"), ("-", "--"), strict=False
            ):
                assert line.get_label().startswith(name)
                assert same_color(line.get_color(), f"C{i}")
                assert line.get_marker() == "o"
                has_order = axes.get_title() not in ("background", "style")
                assert line.get_linestyle() == (style if has_order else "None")
                inside = "white" if field == "held_out" else line.get_color()
                assert same_color(line.get_markerfacecolor(), inside)
                assert list(line.get_xdata(orig=True)) == ticks
                values = {(r.change, r.strength): getattr(r, field) for r in rows}
                assert list(line.get_ydata()) == [values[key] for key in wanted]
        assert list(chance.get_ydata()) == [1 / 120] * 2
        look = chance.get_color(), chance.get_linewidth(), chance.get_linestyle()
        assert look == ("0.6", 0.8, ":")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "small, seen", "small, held out", "large, seen", "large, held out"
    ]  # fmt: skip
    assert (legend._ncols, legend._outside_loc) == (4, "lower")


@pytest.mark.parametrize(("count", "columns"), [(1, 2), (3, 4)])
def test_the_legend_has_at_most_four_columns(count, columns):
    figure = module.figure_of({f"model {i}": made_up(0.1 * i) for i in range(count)})
    assert figure.legends[0]._ncols == columns
    assert len(figure.legends[0].get_texts()) == 2 * count


def test_the_eleventh_model_has_the_first_ones_colour():
    figure = module.figure_of({f"model {i}": made_up(0.01 * i) for i in range(11)})
    colours = [line.get_color() for line in figure.axes[0].lines[:-1:2]]
    assert same_color(colours, [*(f"C{i}" for i in range(10)), "C0"])


def test_the_file_of_the_figure(tmp_path):
    module.plot_robustness({"m": made_up(0.1)}, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1100, 660)


def test_models_without_all_rows_are_not_drawn(tmp_path):
    rows = made_up(0.1)
    for models, message in [
        ({}, "models: got none, expected at least one"),
        ({"a": rows, "b": rows[1:]}, "models['b']: got 15 rows, expected the 16 of robustness"),
        ({"a": rows[::-1]}, "models['a']: got 16 rows, expected the 16 of robustness"),
        ({"a": []}, "models['a']: got 0 rows, expected the 16 of robustness"),
    ]:
        with pytest.raises(ValueError) as error:
            module.plot_robustness(models, tmp_path / "a.png")
        assert str(error.value) == message
    assert not list(tmp_path.iterdir())
