"""Stored pictures, augmented batches, one picture of each label."""

import math
import os

import numpy as np
import pytest
from full_disk import Disk
from PIL import Image

from miniclip.inputs.augment import Augment, apply
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.square import on_ground, visible_square
from miniclip.training import store as store_module
from miniclip.training.augmented import (
    AugmentedData,
    OneOfEachLabel,
    Ramp,
    apply_all,
    by_label,
)
from miniclip.training.data import load_batch
from miniclip.training.store import name_of
from miniclip.training.table_rows import Row
from miniclip.training.targets import positives
from miniclip.training.wording import Named, Wording

TRANSFORM = Transform(size=10)
COLOURS = ("red", "green", "blue", "yellow", "black", "orange")


def stored(paths, side, transform=TRANSFORM, **more):
    return store_module.stored(paths, side, transform, **({"report": lambda line: None} | more))


def name(paths):
    return name_of(paths, "12 shortest False")


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "cache"))
    paths = []
    for n, colour in enumerate(COLOURS):
        paths.append(tmp_path / f"{n}.png")
        Image.new("RGB", (20 + n, 24), colour).save(paths[-1])
    return paths


# ------------------------------------------------------------------------ the store


def test_a_store_has_the_squares(files):
    store = stored(files, 12)
    for path in files:
        np.testing.assert_array_equal(store[path], visible_square(Image.open(path), 12))
    assert store.broken == {}
    assert isinstance(store.squares, np.memmap)
    assert not store.squares.flags.writeable


def test_it_is_made_once_and_again_when_a_picture_changes(files, tmp_path):
    made = []

    def bar(pictures):
        made.append(1)
        return pictures

    stored(files, 12, bar=bar)
    stored([*files, files[0]], 12, bar=bar)  # a picture twice is one
    assert len(made) == 1
    stored(files, 13, bar=bar)
    stored(files[::-1], 12, bar=bar)
    assert len(made) == 3
    Image.new("RGB", (20, 24), "white").save(files[0])
    os.utime(files[0], ns=(1, 1))
    assert (stored(files, 12, bar=bar)[files[0]] == 255).all()
    assert len(made) == 4
    folder = tmp_path / "cache" / "pictures"
    (folder / f"{name(files)}.json").unlink()  # half of it is none
    stored(files, 12, bar=bar)
    assert len(made) == 5


def test_the_number_of_workers_changes_nothing(files, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK", 4)
    one = np.array(stored(files, 12, workers=1).squares)
    (store_module.cache_folder() / "pictures" / f"{name(files)}.npy").unlink()
    np.testing.assert_array_equal(stored(files, 12, workers=3).squares, one)


def test_broken_pictures_are_named_and_stay_so(files):
    files[1].write_bytes(b"no picture")
    missing = files[0].with_name("missing.png")
    for _ in range(2):  # made, and read again
        store = stored([*files, missing], 8)
        assert set(store.broken) == {files[1], missing}
        assert store.broken[files[1]] == "not a picture, or none in a format Pillow reads"
        assert "No such file" in store.broken[missing]
        assert not store[files[1]].any()


def test_pictures_are_turned_as_their_exif_says_where_the_network_does_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "cache"))
    picture = Image.new("RGB", (16, 16), "white")
    picture.paste("black", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "a.png", exif=exif)
    turned = stored([tmp_path / "a.png"], 16, Transform(apply_exif=True))[tmp_path / "a.png"]
    assert (turned[:8, :, 0] == 255).all()
    assert not turned[8:, :, 0].any()
    as_is = stored([tmp_path / "a.png"], 16)[tmp_path / "a.png"]
    np.testing.assert_array_equal(as_is[::-1], turned)


def test_a_store_is_made_as_the_network_makes_squares(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 20), "white").save(path)
    modes = ("shortest", "squash", "longest")
    stores = [stored([path], 8, Transform(resize_mode=mode)) for mode in modes]
    shortest, squash, longest = (store[path][..., 3] for store in stores)
    assert (shortest == 255).all()
    assert (squash == 255).all()
    assert [bool(row.any()) for row in longest] == [False] * 2 + [True] * 4 + [False] * 2
    assert [store.opaque for store in stores] == [{path}] * 3


def test_broken_pictures_are_known_by_another_spelling_of_the_path(files, monkeypatch):
    files[1].write_bytes(b"no picture")
    odd = files[0].with_name("odd\udcff.png")
    odd.write_bytes(b"no picture")
    stored([*files, odd], 8)
    monkeypatch.chdir(files[0].parent)
    again = [path.relative_to(files[0].parent) for path in (*files, odd)]
    said = []
    assert set(stored(again, 8, report=said.append).broken) == {again[1], again[-1]}
    assert said == []  # nothing is decoded anew


def test_stores_that_nobody_uses_are_deleted(files, tmp_path):
    folder = tmp_path / "cache" / "pictures"
    stored(files, 12)
    old, left = set(folder.iterdir()), folder / ".x.npy.1234.tmp"
    left.write_bytes(b"of a killed run")
    stored(files, 13)
    assert old < set(folder.iterdir())
    for file in (*old, left):
        os.utime(file, (0, 0))
    stored(files, 14)
    assert not old & set(folder.iterdir())
    assert not left.exists()
    assert len(list(folder.iterdir())) == 4


def test_a_store_that_is_used_stays(files, tmp_path):
    stored(files, 12)
    kept = set((tmp_path / "cache" / "pictures").iterdir())
    for file in kept:
        os.utime(file, (0, 0))
    stored(files, 12)  # used today
    stored(files, 13)
    assert kept < set((tmp_path / "cache" / "pictures").iterdir())


def test_it_is_said_where_pictures_are_decoded(files, tmp_path):
    said = []
    stored(files, 512, report=said.append)
    assert said == [f"decoding 6 pictures into {tmp_path / 'cache' / 'pictures'} (6 MiB)"]


def test_a_full_disk_leaves_nothing_half_made(files, tmp_path, monkeypatch):
    disk = Disk(tmp_path / "cache", lambda number: number == 4)
    monkeypatch.setattr("builtins.open", disk)
    with pytest.raises(OSError, match="No space left") as error:
        stored(files, 12)
    monkeypatch.undo()
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "cache"))
    assert str(error.value.filename).endswith(".npy")
    assert not list((tmp_path / "cache" / "pictures").iterdir())
    assert len(stored(files, 12).squares) == len(files)


# ------------------------------------------------------------------------ the data


def rows_of(files, labels=None, named=False):
    rows = []
    for n, path in enumerate(files):
        words = Named({"en": f"thing {n}"}, {"en": ("a", "b")}) if named else None
        rows.append(Row(path, (f"one {n}", f"two {n}"), labels[n] if labels else None, words))
    return rows


def data_of(files, augment=None, labels=None, named=False, **more):
    rows = rows_of(files, labels, named)
    transform = Transform(size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return AugmentedData(
        rows, stored(files, 20), transform, augment, Wording(), steps=10, seed=3, **more
    )


def test_without_augmentation_what_is_transparent_is_as_questions_show_it(files):
    for path in files:
        picture = Image.new("RGBA", (24, 24))
        picture.paste(Image.open(path).convert("RGB").resize((20, 20)), (2, 2))
        picture.save(path)
    data = data_of(files)
    assert data.store.opaque == set()
    pixels, captions = data.load([2, 0], 0, 5)
    assert pixels.shape == (2, 3, 16, 16)
    assert pixels.dtype == np.float32
    assert captions[0] in ("one 2", "two 2")
    shown = pixels * np.array(data.transform.std, np.float32)[:, None, None]
    shown += np.array(data.transform.mean, np.float32)[:, None, None]
    page = on_ground(visible_square(Image.open(files[2]), 15), 16)
    difference = abs(shown[0].transpose(1, 2, 0) - np.asarray(page) / 255)
    assert difference[3:-3, 3:-3].max() < 1e-5  # the edge lies between pixels
    assert 0.4 < shown[0][0, 0, 8] < 1  # half of it white
    assert data.store.opaque == set()


def test_without_augmentation_opaque_pictures_fill_the_page(files):
    """As the network's own preprocessing makes them, here of one colour."""
    data = data_of(files)
    pixels, _ = data.load([0, 1, 2, 3], 0, 5)
    expected = data.transform([Image.open(path) for path in files[:4]])
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
    with pytest.raises(ValueError, match="resize_to: got 20, expected None for augmentation"):
        AugmentedData(data.rows, data.store, Transform(size=16, resize_to=20), None, Wording(), 3)


def test_a_change_follows_from_seed_step_and_place(files):
    data = data_of(files, Augment())
    pixels, captions = data.load([0, 1, 2, 3], 0, 5)
    again, same = data.load([0, 1, 2, 3], 7, 5)  # the epoch says nothing
    np.testing.assert_array_equal(again, pixels)
    assert same == captions
    square = data.store[files[2]]
    expected = apply(square, Augment().draw(1.0, [3, 5, 2], 1.0), 16).transpose(2, 0, 1)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    np.testing.assert_allclose(pixels[2], (expected - mean) / std, rtol=1e-6)
    other, _ = data.load([0, 1, 2, 3], 0, 6)
    assert abs(other - pixels).max() > 0.1
    moved, _ = data.load([1, 0, 2, 3], 0, 5)
    np.testing.assert_array_equal(moved[2:], pixels[2:])  # whatever else is in the batch


def test_strength_follows_the_ramp(files):
    ramp = Ramp(start=0.0, up=0.5, end=0.0, down=0.2)
    data = data_of(files, Augment(rotation=0, shear=0, aspect=0), ramp=ramp)
    drawn = [Augment(rotation=0, shear=0, aspect=0).draw(s, [3, 0, 0], 1.0) for s in (0.0, 1.0)]
    np.testing.assert_array_equal(data.change(0, 0, files[0]).matrix, drawn[0].matrix)
    assert (data.change(5, 0, files[0]).matrix != data.change(0, 0, files[0]).matrix).any()
    plain = data_of(files, None, ramp=ramp)
    np.testing.assert_array_equal(plain.change(5, 0, files[0]).matrix, drawn[0].matrix)


@pytest.mark.parametrize(
    ("step", "strength"), [(0, 0.1), (25, 0.55), (50, 1.0), (60, 1.0), (80, 1.0), (90, 0.65)]
)
def test_ramp(step, strength):
    ramp = Ramp(start=0.1, up=0.5, end=0.3, down=0.2)
    assert ramp.strength(step, 101) == pytest.approx(strength)
    assert ramp.strength(100, 101) == pytest.approx(0.3)


def test_ramps_without_a_rise_or_a_fall():
    assert Ramp(up=0.0, down=0.0).strength(0, 100) == 1.0
    assert Ramp(up=0.0, down=0.0).strength(99, 100) == 1.0
    assert Ramp(start=0.2, up=1.0, down=0.0).strength(0, 1) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 1.2}, "start: got 1.2, expected a number from 0 to 1"),
        ({"end": -0.1}, "end: got -0.1"),
        ({"up": math.nan}, "up: got nan"),
        ({"down": True}, "down: got True"),
        ({"up": 0.7, "down": 0.4}, "down: got 0.4 beside up 0.7, expected at most 1"),
    ],
)
def test_wrong_ramps(fields, message):
    with pytest.raises(ValueError, match=message):
        Ramp(**fields)


def test_captions_of_names(files):
    data = data_of(files, named=True)
    words = {data.caption(1, step, 0) for step in range(60)}
    assert "thing 1" in words
    assert {"a", "b"} & words
    assert "one 1" not in words


# ------------------------------------------------------------------------ labels


def test_one_picture_of_each_label(files):
    data = OneOfEachLabel(data_of(files, labels=["x", "y", "x", "z", "x", "y"]), seed=1)
    assert len(data) == 3
    seen = {tuple(data.chosen([0, 1, 2], epoch)) for epoch in range(60)}
    assert {row for rows in seen for row in rows} == set(range(6))
    assert all({first, second} <= {0, 2, 4, 1, 5} for first, second, _ in seen)
    assert len(seen) == 6  # every choice comes
    assert data.chosen([2, 0], 4) == [data.chosen([2], 4)[0], data.chosen([0], 4)[0]]
    _, captions = data.load([1], 9, 0)
    assert captions[0].split()[1] == str(data.chosen([1], 9)[0])


def test_labels_decide_where_there_are_enough_for_a_batch(files):
    labels = ["x", "y", "x", "z", "x", "y"]
    data = data_of(files, labels=labels)
    assert isinstance(by_label(data, 3, 0), OneOfEachLabel)
    assert by_label(data, 4, 0) is data
    assert by_label(data_of(files), 2, 0).rows[0].label is None
    alone = by_label(data_of(files, labels=[*labels[:5], None]), 2, 0)
    assert alone.groups == [[0, 2, 4], [1], [3], [5]]  # one without a label is a thing of its own
    with pytest.raises(ValueError, match="label: all 6 rows have 'x', expected two at least"):
        by_label(data_of(files, labels=["x"] * 6), 2, 0)
    with pytest.raises(ValueError, match="data: got rows without labels, expected some"):
        OneOfEachLabel(data_of(files))


def test_with_few_labels_equal_ones_are_positives(files):
    data = data_of(files, labels=["x", "y", "x", "y", "x", "y"])
    batch = load_batch(data, 0, 6, seed=0)
    assert batch.labels == tuple("xy"[i % 2] for i in batch.indices)
    targets = positives(batch.captions, batch.labels)
    np.testing.assert_array_equal(targets.sum(axis=1), 3)
    assert load_batch(data_of(files), 0, 6, seed=0).labels is None


def test_targets_of_captions_and_labels():
    np.testing.assert_array_equal(
        positives(["a", "b", "b"], ["x", "x", "z"]), [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    )
    assert positives(["a", "b"], ["x", "y"]) is None
    assert positives(["a", "b"]) is None


def test_the_readable_version_is_the_default(files):
    assert data_of(files).make is apply_all
