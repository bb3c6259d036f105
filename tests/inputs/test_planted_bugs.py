"""Planted bugs in preprocessing and in the tokenizer: the checks against the originals find each."""

import importlib

import door_checks
import numpy as np
import pytest
from picture_checks import check_recipes
from planting import is_caught, planted_in_place, planted_package
from tokenizer_checks import check_tokenizer

from miniclip import inputs
from miniclip.check import Bug, unchanged
from miniclip.inputs import preprocess

PREPROCESS = "inputs.preprocess"
OPENING, PICTURES_IN = "inputs.opening", "inputs.pictures"
BPE, TOKENIZER, VOCABULARY = "inputs.bpe", "inputs.tokenizer", "inputs.vocabulary"

PICTURES = [
    Bug("crop rounded down", "recipes", PREPROCESS, "round((side - n) / 2)", "int((side - n) / 2)"),
    Bug("crop rounded up", "recipes", PREPROCESS, "round((side - n) / 2)", "(side - n + 1) // 2"),
    Bug("crop of hf rounded", "recipes", PREPROCESS, "return (side - n) // 2", "return round((side - n) / 2)"),
    Bug("white forgotten", "recipes", PREPROCESS, "picture = on_white(picture)", "pass"),
    Bug("the crop's side resized to", "recipes", PREPROCESS, "self.resize_to or self.size, self.resize_mode", "self.size, self.resize_mode"),
    Bug("RGB before resizing", "recipes", PREPROCESS, 'if self.order == "hf":', "if True:"),
    Bug("hf after resizing", "recipes", PREPROCESS, 'if self.order == "hf":', "if False:"),
    Bug("mean and std swapped", "recipes", PREPROCESS, "self.mean, self.std)", "self.std, self.mean)"),
    Bug("a digit of the mean", "recipes", PREPROCESS, "0.48145466", "0.48145646"),
    Bug("bilinear", "recipes", PREPROCESS, "Image.Resampling.BICUBIC", "Image.Resampling.BILINEAR"),
    Bug("nearest", "recipes", PREPROCESS, "Image.Resampling.BICUBIC", "Image.Resampling.NEAREST"),
    Bug("size rounded", "recipes", PREPROCESS, "int(n * long / short)", "round(n * long / short)"),
    Bug("size one short", "recipes", PREPROCESS, "int(n * long / short)", "int(n / short * long)"),
    Bug("width for height", "recipes", PREPROCESS, "if size[0] <= size[1]", "if size[0] > size[1]"),
    Bug("BGR", "recipes", PREPROCESS, "pixels.astype", "pixels[..., ::-1].astype"),
    Bug("rows for columns", "recipes", PREPROCESS, "transpose(2, 0, 1)", "transpose(2, 1, 0)"),
    Bug("channels last", "recipes", PREPROCESS, "transpose(2, 0, 1)", "reshape(3, *pixels.shape[:2])"),
    Bug("divided by 256", "recipes", PREPROCESS, "np.float32(255)", "np.float32(256)"),
    Bug("in float64", "recipes", PREPROCESS, "pixels.astype(np.float32)", "pixels.astype(np.float64)"),
    Bug("floats cut off", "recipes", OPENING, "np.rint(array.astype(np.float64) * 255)", "(array * 255)"),
    Bug("squashed", "recipes", PREPROCESS, '    if mode == "squash":', '    if mode != "longest":'),
    Bug("padded right and below", "recipes", PREPROCESS, "((n - width) // 2,", "(0,"),
    Bug("padding rounded up", "recipes", PREPROCESS, "((n - width) // 2,", "((n - width + 1) // 2,"),
    Bug("padding without colour", "recipes", PREPROCESS, "(fill,) * len", "(0,) * len"),
    Bug("always turned by EXIF", "recipes", OPENING, "if apply_exif else", "if True else"),
    Bug("never turned by EXIF", "recipes", OPENING, "if apply_exif else", "if False else"),
    Bug("the shorter side to n", "recipes", PREPROCESS, "ratio = long / n", "ratio = short / n"),
]  # fmt: skip

TEXTS = [
    Bug("no </w>", "tokenizer", BPE, "    symbols[-1] += END_OF_WORD\n", ""),
    Bug("not lowered", "tokenizer", BPE, ".strip().lower()", ".strip()"),
    Bug("unescaped once", "tokenizer", BPE, "html.unescape(html.unescape(text))", "html.unescape(text)"),
    Bug("not repaired", "tokenizer", BPE, "text = ftfy.fix_text(text)", "text"),
    Bug("pattern minds case", "tokenizer", BPE, "pattern, regex.IGNORECASE", "pattern"),
    Bug("digits in runs", "tokenizer", BPE, "[\\p{N}]|", "[\\p{N}]+|"),
    Bug("letters of Latin only", "tokenizer", BPE, "|[\\p{L}]+", "|[a-z]+"),
    Bug("no contractions", "tokenizer", BPE, "|'s|'t|'re|'ve|'m|'ll|'d", ""),
    Bug("soft hyphen visible", "tokenizer", BPE, "range(0xAE, 0x100)", "range(0xAD, 0x100)"),
    Bug("hidden bytes by value", "tokenizer", BPE, "chr(0x100 + n)", "chr(0x100 + byte)"),
    Bug("hidden bytes first", "tokenizer", BPE, "return symbols | {byte: chr(0x100 + n) for n, byte in enumerate(hidden)}", "return {byte: chr(0x100 + n) for n, byte in enumerate(hidden)} | symbols"),
    Bug("joined from right to left", "tokenizer", BPE, "sorted(waiting.pop(rank))", "sorted(waiting.pop(rank))[::-1]"),
    Bug("any rank", "tokenizer", BPE, "rank = heapq.heappop(queue)", "rank = queue.pop()"),
    Bug("stale places joined", "tokenizer", BPE, "if rank_at(place) != rank:", "if rank_at(place) is None:"),
    Bug("left neighbour forgotten", "tokenizer", BPE, "notice(chain.left[place])", "pass"),
    Bug("right neighbour forgotten", "tokenizer", BPE, "            notice(place)\n        if", "        if"),
    Bug("left link not moved", "tokenizer", BPE, "self.left[beyond] = place", "pass"),
    Bug("words counted once", "tokenizer", BPE, "self.weight.extend([count] *", "self.weight.extend([1] *"),
    Bug("old pairs still counted", "tokenizer", BPE, "self.counts[pair] -= self.weight[place]", "pass"),
    Bug("new pairs not queued", "tokenizer", BPE, "for new in made:", "for new in ():"),
    Bug("rarer pairs lost", "tokenizer", BPE, "if now > 0:", "if False:"),
    Bug("min_count off by one", "tokenizer", BPE, "now >= min_count", "now > min_count"),
    Bug("end lost at truncation", "tokenizer", TOKENIZER, "[*ids[: context - 1], self.end_id]", "ids[:context]"),
    Bug("cut one early", "tokenizer", TOKENIZER, "ids[: context - 1]", "ids[: context - 2]"),
    Bug("cache's key cut", "tokenizer", TOKENIZER, "self._cache.get(word)", "self._cache.get(word[:5])"),
    Bug("special tokens as text", "tokenizer", TOKENIZER, "        if word in (START, END):\n            return [word]\n", ""),
    Bug("read beyond the end token", "tokenizer", TOKENIZER, "                break\n", "                continue\n"),
    Bug("last space kept", "tokenizer", TOKENIZER, '.removesuffix(" ")', ""),
    Bug("all spaces lost", "tokenizer", TOKENIZER, 'replace(END_OF_WORD, " ")', 'replace(END_OF_WORD, "")'),
    Bug("explained without merges", "tokenizer", TOKENIZER, "self._pieces(word, ranks)", "self._pieces(word)"),
    Bug("vocab.json not used", "tokenizer", TOKENIZER, "vocab = None if vocab_json is None else", "vocab = None and"),
    Bug("a merge too few", "tokenizer", VOCABULARY, "[1 : 1 + BPE_MERGES]", "[1:BPE_MERGES]"),
    Bug("header taken for a merge", "tokenizer", VOCABULARY, "[1 : 1 + BPE_MERGES]", "[:BPE_MERGES]"),
    Bug("whole file taken", "tokenizer", VOCABULARY, "[1 : 1 + BPE_MERGES]", "[1:]"),
    Bug("end before start", "tokenizer", VOCABULARY, "merges), START, END]", "merges), END, START]"),
    Bug("special tokens first", "tokenizer", VOCABULARY, "[*base_symbols(), *map", "[START, *base_symbols(), *map"),
]  # fmt: skip


DOOR = [
    Bug("folders in another order", "folder", PICTURES_IN, "sorted(folder.iterdir())", "sorted(folder.iterdir(), key=lambda path: path.name[::-1])"),
    Bug("hidden files count", "folder", PICTURES_IN, "not is_hidden(path) and path.suffix", "path.suffix"),
    Bug("capital endings do not count", "folder", PICTURES_IN, "path.suffix.lower()", "path.suffix"),
    Bug("folders count", "folder", PICTURES_IN, "in ENDINGS and path.is_file()", "in ENDINGS"),
    Bug("any file counts", "folder", PICTURES_IN, "path.suffix.lower() in ENDINGS and ", ""),
    Bug("a bare folder is nothing", "no pictures", PICTURES_IN, "    if not files:", "    if False:"),
    Bug("generators are listed", "lazy", PICTURES_IN, "return one_by_one(images, later)", "return list(one_by_one(images, later))"),
    Bug("a batch is one picture", "batch", PICTURES_IN, "if item.ndim == 4:", "if item.ndim == 9:"),
]  # fmt: skip


@pytest.mark.planted
@pytest.mark.parametrize("bug", PICTURES, ids=lambda bug: bug.name)
@pytest.mark.filterwarnings("ignore::miniclip.inputs.preprocess.PictureWarning")
def test_it_is_found_in_a_picture(bug):
    with planted_in_place(bug, "inputs"):
        assert is_caught(lambda: check_recipes(preprocess)), f"not found: {bug.name}"


@pytest.mark.filterwarnings("ignore::miniclip.inputs.preprocess.PictureWarning")
@pytest.mark.parametrize("module", [PREPROCESS, OPENING])
def test_without_a_bug_nothing_is_found_in_a_picture(module):
    """The control: the same module executed anew, nothing changed."""
    with planted_in_place(unchanged(module), "inputs"):
        check_recipes(preprocess)


def check_door(where, folder):
    if where == "folder":
        door_checks.check_folder(door_checks.make_folder(folder))
    elif where == "no pictures":
        door_checks.check_folders_without_pictures(folder)
    elif where == "lazy":
        door_checks.check_taken_when_asked_for()
    else:
        assert len(door_checks.door.pictures(np.zeros((5, 6, 8, 3), np.uint8))) == 5


@pytest.mark.planted
@pytest.mark.parametrize("bug", DOOR, ids=lambda bug: bug.name)
def test_it_is_found_at_the_door(bug, tmp_path):
    with planted_in_place(bug, "inputs"):
        assert is_caught(lambda: check_door(bug.where, tmp_path)), f"not found: {bug.name}"


@pytest.mark.parametrize("where", sorted({bug.where for bug in DOOR}))
def test_without_a_bug_nothing_is_found_at_the_door(where, tmp_path):
    with planted_in_place(unchanged(PICTURES_IN), "inputs"):
        check_door(where, tmp_path)


@pytest.mark.planted
@pytest.mark.parametrize("bug", TEXTS, ids=lambda bug: bug.name)
def test_it_is_found_in_a_text(bug, tmp_path):
    with planted_package(bug, tmp_path):
        package = importlib.import_module("miniclip.inputs")
        assert package is not inputs
        check = lambda: check_tokenizer(package, tmp_path / "vocabularies")  # noqa: E731
        assert is_caught(check), f"not found: {bug.name}"


@pytest.mark.parametrize("module", sorted({bug.module for bug in TEXTS}))
def test_without_a_bug_nothing_is_found_in_a_text(module, tmp_path):
    """The control: the same copying and importing, nothing changed."""
    with planted_package(unchanged(module), tmp_path):
        package = importlib.import_module("miniclip.inputs")
        assert str(tmp_path) in package.__file__
        check_tokenizer(package, tmp_path / "vocabularies")


def test_there_are_enough():
    assert len({bug.name for bug in PICTURES}) == len(PICTURES) >= 25
    assert len({bug.name for bug in TEXTS}) == len(TEXTS) >= 36
