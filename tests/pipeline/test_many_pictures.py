"""Many pictures through the pipeline: in chunks, in order, and never more than needed in memory."""

import weakref

import drawn
import numpy as np
import pytest
from door_checks import check_chunks
from PIL import Image
from pipelines import make_pipeline

import miniclip
from miniclip.inputs.pictures import PictureError
from miniclip.pipeline.batching import in_chunks
from miniclip.tasks.result import PICTURES_SHOWN

LABELS = drawn.CAPTIONS[:3]


@pytest.fixture
def tiny(monkeypatch):
    """Whose chunks are three pictures."""
    monkeypatch.setattr("miniclip.pipeline.pipeline.images_per_chunk", lambda config: 3)
    return make_pipeline("float64")


def drawings(count):
    rng = np.random.default_rng(0)
    return [drawn.draw(drawn.CAPTIONS[i % len(drawn.CAPTIONS)], rng, 40) for i in range(count)]


@pytest.fixture
def folder(tmp_path):
    for i, picture in enumerate(drawings(7)):
        picture.save(tmp_path / f"{i}.png")
    return tmp_path


def check_every_way_in(model, folder):
    """Whatever 7 pictures come in as, their embeddings are those of one after the other."""
    pictures, paths = drawings(7), sorted(folder.iterdir())
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    expected = np.concatenate([model.encode_image(picture) for picture in pictures])
    ways = {
        "list": pictures,
        "generator": (picture for picture in pictures),
        "paths": map(str, paths),
        "folder": folder,
        "batch": arrays,
        "floats": arrays / 255,
        "a generator of batches": (arrays[i : i + 4] for i in (0, 4)),
        "a generator of folders": iter([folder]),
        "preprocessed": model.preprocess(pictures),
    }
    for way, images in ways.items():
        got = model.encode_image(images)
        np.testing.assert_allclose(got, expected, atol=1e-12, err_msg=way)


def test_every_way_in_gives_the_same(tiny, folder):
    check_every_way_in(tiny, folder)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_no_picture_is_lost_between_chunks(tiny, count):
    """Counts below, at and above one chunk and two."""
    pictures = drawings(count)
    expected = np.concatenate([tiny.encode_image(picture) for picture in pictures])
    for images in (pictures, iter(pictures)):
        np.testing.assert_allclose(tiny.encode_image(images), expected, atol=1e-12)


def test_chunks():
    check_chunks()


def check_only_as_many_as_needed(model, task):
    """A generator of 60 pictures: few are ever there at once, whatever is done with them."""
    made, alive = [], []

    def shown():
        for shade in range(60):
            picture = Image.new("RGB", (40, 40), (4 * shade, 0, 255 - shade))
            made.append(weakref.ref(picture))
            alive.append(sum(one() is not None for one in made))
            yield picture
            del picture

    result = task(model, shown())
    assert len(made) == 60
    assert alive[0] == 1
    return result, max(alive)


def test_pictures_of_a_generator_are_not_kept(tiny):
    embeddings, most = check_only_as_many_as_needed(tiny, type(tiny).encode_image)
    assert len(embeddings) == 60
    assert most <= 3  # and with a list, 60


def test_a_result_keeps_of_a_generator_what_it_shows(tiny):
    def task(model, images):
        return miniclip.zero_shot(images, LABELS, model)

    result, most = check_only_as_many_as_needed(tiny, task)
    assert most <= PICTURES_SHOWN + 3
    assert [image is not None for image in result.images] == [n < PICTURES_SHOWN for n in range(60)]
    assert result._repr_html_().count("<img") == PICTURES_SHOWN
    assert result.names()[59] == "image 59"


def test_a_result_names_every_path_of_a_generator(tiny, folder):
    paths = [str(path) for path in sorted(folder.iterdir())] * 3
    result = miniclip.zero_shot(iter(paths), LABELS, tiny)
    assert result.names() == paths
    assert result.images == paths
    whole = miniclip.zero_shot(paths, LABELS, tiny)
    np.testing.assert_allclose(result.cosine, whole.cosine, atol=1e-12)


def test_a_result_of_a_list_keeps_what_was_handed_in(tiny, folder):
    pictures = drawings(20)
    assert miniclip.zero_shot(pictures, LABELS, tiny).images == pictures
    assert miniclip.zero_shot(folder, LABELS, tiny).images == sorted(folder.iterdir())
    names = miniclip.zero_shot([folder, pictures[0]], LABELS, tiny).names()
    assert names == [*(str(path) for path in sorted(folder.iterdir())), "image 7"]


def test_nothing_is_taken_from_a_generator_whose_labels_are_wrong(tiny):
    images = iter(drawings(2))
    with pytest.raises(ValueError, match="labels: got none"):
        miniclip.zero_shot(images, [], tiny)
    assert len(list(images)) == 2


def test_a_wrong_picture_is_named_by_its_place(tiny, tmp_path):
    """Also in a later chunk. One that cannot be there is found before any is encoded."""
    good, broken = drawings(4), tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for images in ([*good, broken], iter([*good, broken])):
        with pytest.raises(PictureError, match=r"^images\[4\] '.*broken\.png': not a picture"):
            tiny.encode_image(images)
    encoded = []
    tiny.network.visual.forward = encoded.append
    with pytest.raises(PictureError, match=r"^images\[4\] 'gone\.png': no such file"):
        tiny.encode_image([*good, "gone.png"])
    assert not encoded
    with pytest.raises(PictureError, match=r"^images: got none, expected at least one pict"):
        miniclip.zero_shot(iter(()), LABELS, tiny)


def test_a_bar_counts_what_it_cannot_foresee(tiny, capsys):
    tiny.encode_image(iter(drawings(7)), progress=True)
    assert "7 images [" in capsys.readouterr().err
    tiny.encode_image(iter(drawings(7)))  # no terminal here
    tiny.encode_image(iter(drawings(7)), progress=False)
    tiny.encode_image(drawings(3), progress=True)  # one chunk
    assert capsys.readouterr().err == ""


def test_a_chunk_is_computed_before_the_next_is_begun():
    events = []

    def items():
        for i in range(5):
            events.append(i)
            yield i

    def compute(chunk):
        rows = np.array(list(chunk))
        events.append("computed")
        return rows

    parts = in_chunks(compute, items(), 2, "things", False)
    assert np.concatenate(parts).tolist() == [0, 1, 2, 3, 4]
    assert events == [0, 1, "computed", 2, 3, "computed", 4, "computed"]
