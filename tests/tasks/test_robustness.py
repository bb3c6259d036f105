"""Changed pictures: what each change does to pixels, and that the rows say what they count."""

import importlib
import json

import numpy as np
import pytest
from PIL import Image
from pipelines import scene_pipeline
from task_checks import BOTH, CHANGES, check_robustness

from miniclip.world.drawing import draw_scene

module = importlib.import_module("miniclip.tasks.robustness")  # not the function of that name


def pixels_of(change, strength, scenes=BOTH):
    pictures = [module.draw_changed(scene, change, strength) for scene in scenes]
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", (64, 64))}
    return np.stack([np.asarray(picture, int) for picture in pictures])


@pytest.mark.parametrize(("change", "strength"), CHANGES)
def test_a_change_changes_every_picture_and_always_in_the_same_way(change, strength):
    plain = np.stack([np.asarray(draw_scene(scene), int) for scene in BOTH])
    changed = pixels_of(change, strength)
    differs = np.abs(changed - plain).max(axis=(1, 2, 3)) > 0  # (N,)
    assert not differs.any() if change == "none" else differs.all()
    np.testing.assert_array_equal(pixels_of(change, strength), changed)
    # on its own as among others: a scene's change depends on the scene alone
    np.testing.assert_array_equal(pixels_of(change, strength, BOTH[7:8])[0], changed[7])


@pytest.mark.parametrize("change", ["noise", "blur", "jpeg", "occlusion"])
def test_stronger_is_further_away(change):
    plain = pixels_of("none", "")
    far = [np.abs(pixels_of(change, s) - plain).mean() for s in module.STRENGTHS[change]]
    assert far[0] < 0.9 * far[1] < 0.9 * 0.9 * far[2], far


def test_noise_is_as_strong_as_it_says():
    """On grey, where nothing is cut off; and the same noise at every strength."""
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    noise = {}
    for strength in module.STRENGTHS["noise"]:
        noisy = module.add_noise(grey, strength, np.random.default_rng(0))
        noise[strength] = np.asarray(noisy, float) - 128
        assert noise[strength].std() / 255 == pytest.approx(strength, rel=0.03)
        assert abs(noise[strength].mean()) < 2
    np.testing.assert_allclose(2 * noise[0.05], noise[0.1], atol=1.6)  # both are rounded


def test_noise_is_its_own_in_every_pixel_and_channel():
    """Grey noise, one draw for all three channels, is another corruption: nothing would be
    coloured. Neither channels nor rows nor columns have anything in common."""
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    for strength in module.STRENGTHS["noise"]:
        noisy = module.add_noise(grey, strength, np.random.default_rng(0))
        noise = np.asarray(noisy, float) - 128
        for axis in range(3):
            rows = np.moveaxis(noise, axis, 0).reshape(noise.shape[axis], -1)
            correlation = np.corrcoef(rows) - np.eye(len(rows))
            assert np.abs(correlation).max() < 0.5, axis


@pytest.mark.parametrize("share", module.STRENGTHS["occlusion"])
def test_a_square_is_covered(share):
    white = Image.new("RGB", (64, 64), (255, 255, 255))
    corners = set()
    for seed in range(30):
        covered = np.asarray(module.occlude(white, share, np.random.default_rng(seed)))
        rows, columns = np.nonzero((covered == 128).all(axis=2))
        side = len(set(rows))
        assert len(rows) == side * side == len(set(columns)) ** 2  # a square, all of it inside
        assert len(rows) / 64**2 == pytest.approx(share, abs=0.01)
        corners.add((rows.min(), columns.min()))
    assert len(corners) > 20
    assert np.asarray(white).min() == 255  # the picture that was given is as it was


def test_what_is_drawn_stays():
    """Background and style change the scene, and nothing that is asked for."""
    changed = [module.draw_changed(scene, "background", "dark") for scene in BOTH]
    corner = np.stack([np.asarray(picture)[0, 0] for picture in changed])
    assert corner.max() < 130  # training has nothing as dark behind its things
    with pytest.raises(ValueError, match="change: got 'fog', expected one of none, noise, blur"):
        module.draw_changed(BOTH[0], "fog", 1)


def test_the_rows_say_what_they_count():
    check_robustness(module)


def test_a_real_model_is_asked():
    pipeline = scene_pipeline()
    rows = module.robustness(pipeline, 3)
    assert rows == module.robustness(pipeline, 3)
    assert len(rows) == 16
    with pytest.raises(ValueError, match="count: got 0, expected a whole number, at least 1"):
        module.robustness(pipeline, 0)


def made_up(seed):
    rng = np.random.default_rng(seed)
    return [module.RobustnessRow(c, s, *map(float, rng.random(2)), 50) for c, s in CHANGES]


def test_tables():
    rows = made_up(0)
    assert json.loads(json.dumps([row.as_dict() for row in rows]))[1]["change"] == "noise"
    text, markdown = module.as_text(rows), module.as_markdown(rows)
    for row, line in zip(rows, text.splitlines()[1:], strict=True):
        assert line.split() == [
            row.change, *str(row.strength).split(), f"{row.seen:.1%}", f"{row.held_out:.1%}"
        ]  # fmt: skip
    assert {line.count("|") for line in markdown.splitlines()} == {5}
    assert len(markdown.splitlines()) == len(rows) + 2


def test_the_plot_shows_the_rows(tmp_path):
    models = {"small": made_up(1), "large": made_up(2)}
    path = tmp_path / "robustness.png"
    module.plot_robustness(models, path)
    with Image.open(path) as picture:
        assert picture.size > (500, 300)
    panels = {axes.get_title(): axes for axes in module.figure_of(models).axes}
    assert set(panels) == set(module.STRENGTHS) - {"none"}
    for change, axes in panels.items():
        lines = {line.get_label(): line for line in axes.lines}
        rows = [row for row in models["large"] if row.change in ("none", change)]
        drawn = lines["large, held out"].get_ydata()
        np.testing.assert_array_equal(drawn, [row.held_out for row in rows])
        np.testing.assert_array_equal(lines["large, seen"].get_ydata(), [r.seen for r in rows])
        assert lines["small, seen"].get_color() != lines["large, seen"].get_color()
        in_order = change not in ("background", "style")  # only numbers have a line between them
        styles = {lines[f"large, {kind}"].get_linestyle() for kind in ("seen", "held out")}
        assert styles == ({"-", "--"} if in_order else {"None"})


def test_what_cannot_be_plotted(tmp_path):
    with pytest.raises(ValueError, match="models: got none, expected at least one"):
        module.plot_robustness({}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"models\['m'\]: got 15 rows, expected the 16 of"):
        module.plot_robustness({"m": made_up(0)[1:]}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
