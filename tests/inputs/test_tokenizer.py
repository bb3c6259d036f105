"""The tokenizer against the original and transformers, its files, its trainer, its messages."""

import copy
import functools
import gzip
import json
import os
import pickle
import random
import re
import sys
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizer_checks import (
    CAPTIONS,
    END,
    START,
    TRICKY,
    VOCABULARY,
    check_back,
    check_files,
    check_like_the_original,
    check_rows,
    check_steps,
    check_training,
    joined,
    original,
    original_module,
    write_tokenizer_json,
)

from miniclip.inputs import BPE_FILE, BPE_SHA256, Tokenizer, bpe, train_merges
from miniclip.inputs import tokenizer as tokenizer_module

often = settings(max_examples=5 * settings().max_examples)


@functools.cache
def real():
    return Tokenizer.from_bpe_file(VOCABULARY, sha256=BPE_SHA256)


SMALL = 560  # ids


@functools.cache
def small():
    return Tokenizer(train_merges(CAPTIONS, SMALL, min_count=1))


# --------------------------------------------------------------------------- texts to be drawn

characters = st.one_of(
    st.characters(),  # anything, lone surrogates too
    st.characters(max_codepoint=0x7F),
    st.characters(categories=["Cs", "Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp"]),
    st.characters(categories=["Lo", "Lt", "Lm", "Nl", "No", "So"]),
    st.sampled_from(
        "'sStTrReEvVmMlLdD<>|&;#xX \u0130ß\u017f\u1e9eΣς\u212a\u0345\u200d\ufe0f\U0001f3fd\u0301"
    ),
)
snippets = st.one_of(
    st.sampled_from(TRICKY),
    st.text(characters, max_size=8),
    st.sampled_from(["&", "amp;", "&amp;", "&lt;", "&#", "&#x", "39;", "eacute;", "<|", "|>"]),
    st.tuples(st.text(characters, min_size=1, max_size=3), st.integers(1, 80)).map(
        lambda drawn: drawn[0] * drawn[1]
    ),
    st.builds("&#{};".format, st.integers(0, 0x110000)),
)
texts = st.lists(snippets, max_size=5).map("".join)


# ----------------------------------------------------------------------- against the original


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello World!", [3306, 1002, 256]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("don't I've we'll 2023", [847, 713, 328, 1200, 649, 1342, 273, 271, 273, 274]),
        ("你好世界", [47466, 254, 29290, 121, 19759, 244, 163, 243, 490]),
        ("", []),
    ],
)
def test_known_ids(text, ids):
    assert real().encode(text) == ids
    expected = [49406, *ids, 49407]
    assert real()(text).tolist() == [expected + [0] * (77 - len(expected))]


def test_the_real_vocabulary():
    assert (real().vocab_size, real().start_id, real().end_id) == (49408, 49406, 49407)
    assert len(real().merges) == 48894
    assert real().vocab == original().encoder


@pytest.mark.parametrize("text", TRICKY, ids=ascii)
def test_tricky_texts(text):
    check_like_the_original(real(), original(), text)
    check_back(real(), text)
    check_steps(real(), text)


@often
@given(texts)
def test_any_text_is_encoded_as_by_the_original(text):
    check_like_the_original(real(), original(), text)


@given(st.lists(texts, min_size=1, max_size=4), st.integers(2, 90))
def test_rows_are_those_of_the_original(batch, context):
    check_rows(real(), original(), batch, context)


@given(st.lists(st.integers(0, 49405), max_size=30))
def test_any_ids_are_decoded_as_by_the_original(ids):
    assert real().decode(ids) == original().decode(ids).removesuffix(" ")


@given(texts)
def test_decode_gives_the_cleaned_text_back(text):
    check_back(real(), text)
    check_back(small(), text)  # a small vocabulary falls back on bytes


@given(texts)
def test_steps_show_what_encode_does(text):
    check_steps(real(), text)


symbols = st.text("abc", min_size=1, max_size=3)


@often
@given(st.lists(st.tuples(symbols, symbols), unique=True), st.text("abc", min_size=1, max_size=60))
@example([("aa", "b"), ("a", "a"), ("b", "a")], "aaabaaba")
def test_any_order_of_merges_acts_as_in_the_original(pairs, word):
    """Lists that no training makes too: a late pair may make what an early one waits for."""
    theirs = object.__new__(original_module().SimpleTokenizer)
    theirs.cache, theirs.bpe_ranks = {}, {p: i for i, p in enumerate(pairs)}
    expected = theirs.bpe(word).split(" ")
    steps = []
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    assert bpe.merge_symbols(bpe.word_symbols(word), ranks, steps) == expected
    state = tuple(bpe.word_symbols(word))
    for rank in steps:
        state = joined(state, pairs[rank])
    assert list(state) == expected


@pytest.mark.parametrize("alphabet", ["a", "ab", "abcdefghijklmnopqrstuvwxyz", "é好"])
def test_long_words(alphabet):
    rng = random.Random(0)
    word = "".join(rng.choice(alphabet) for _ in range(100_000))
    check_like_the_original(real(), original(), word[:1500])
    start = time.perf_counter()
    ids = real().encode(word)
    assert time.perf_counter() - start < 20  # the plain way: minutes
    assert real().decode(ids).replace(" ", "") == word
    assert len(repr(real().steps(word[:20_000]))) < 400_000


def test_lone_surrogates_become_the_replacement_character():
    """They never reach the bytes, where UTF-8 could not write them: ftfy replaces them."""
    assert real().clean("a\ud800b\udfff") == "a\ufffdb\ufffd"
    assert real().clean("&#xD800;") == "\ufffd"
    assert real().encode("\ud800") == original().encode("\ufffd")


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="Python reads any number")
def test_the_one_text_that_the_original_cannot_encode():
    text = "a &#" + "1" * 5000 + "; b"
    with pytest.raises(ValueError, match="integer string conversion"):
        original().encode(text)
    message = r"^text: an HTML entity in 'a &#1+'\.\.\. is too long a number$"
    with pytest.raises(ValueError, match=message):
        real().encode(text)


# --------------------------------------------------------------------- against transformers


@functools.cache
def transformers_tokenizer(folder, which):
    import transformers

    which.save(folder)
    return transformers.CLIPTokenizer.from_pretrained(str(folder))


def same_for_transformers(text):
    """Whether transformers treats the text as the original does.

    From version 5 on it neither repairs nor unescapes; it composes (NFC) and lowers letter by
    letter. Its pattern minds case, so a long s makes no contraction ('ſ) and U+0345, which folds
    to a letter, is none. It looks for special tokens before it splits words. And its tables of
    characters are older: unassigned ones are left out.
    """
    return (
        real().clean(text) == text == unicodedata.normalize("NFC", text)
        and not re.search("\u0345|'\u017f", text)
        and "<|" not in text
        and all(unicodedata.category(character) != "Cn" for character in text)
    )


plain = st.lists(
    st.one_of(
        st.sampled_from(
            ["a photo", " of ", "cat", "'s", "'ll", " don't", " 2023", "!?", "🇩🇪", "你好"]
        ),
        st.text(st.characters(exclude_categories=["Cs", "Cn", "Cc", "Lu", "Lt", "Co"]), max_size=6),
    ),
    max_size=6,
).map(lambda parts: real().clean("".join(parts)))


@pytest.mark.parametrize("which", [real, small], ids=["real", "small"])
def test_transformers_agrees(which, tmp_path_factory):
    theirs = transformers_tokenizer(tmp_path_factory.mktemp("vocabulary"), which())

    @often
    @given(plain.filter(same_for_transformers))
    def check(text):
        ids = [which().start_id, *which().encode(text), which().end_id]
        assert theirs(text)["input_ids"] == ids

    check()


def test_files_of_transformers_are_read(tmp_path):
    transformers_tokenizer(tmp_path / "ours", small()).save_pretrained(str(tmp_path / "theirs"))
    loaded = Tokenizer.from_folder(tmp_path / "theirs")
    assert (loaded.merges, loaded.vocab) == (small().merges, small().vocab)


# ------------------------------------------------------------------------------------- files


def test_every_way_through_files(tmp_path):
    check_files(Tokenizer, small(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["merges.txt", "vocab.json", "tokenizer.json", BPE_FILE]
    )


def test_ids_come_from_the_file(tmp_path):
    """Another order of ids is kept, and a tokenizer without merges is one too."""
    rng = random.Random(0)
    numbers = rng.sample(range(small().vocab_size), small().vocab_size)
    vocab = dict(zip(small().vocab, numbers, strict=True))
    shuffled = Tokenizer(small().merges, vocab=vocab)
    assert shuffled.vocab == vocab
    assert shuffled.encode("a cat") == [vocab[t] for t in ("a</w>", "cat</w>")]
    check_files(Tokenizer, shuffled, tmp_path / "shuffled")
    check_files(Tokenizer, Tokenizer([]), tmp_path / "bytes")


def test_settings_pass_through_every_constructor(tmp_path):
    check_files(Tokenizer, small(), tmp_path)
    settings = {"context_length": 9, "pad_id": small().end_id}
    for loaded in (
        Tokenizer.from_folder(tmp_path, **settings),
        Tokenizer.from_bpe_file(tmp_path / BPE_FILE, **settings),
        Tokenizer.from_merges_file(tmp_path / "merges.txt", **settings),
        Tokenizer.from_tokenizer_json(tmp_path / "tokenizer.json", **settings),
    ):
        start, end = small().start_id, small().end_id
        assert loaded("").tolist() == [[start, end, *[end] * 7]]


def test_the_order_in_a_folder(tmp_path):
    check_files(Tokenizer, small(), tmp_path)
    for name in ("vocab.json", "tokenizer.json", BPE_FILE, "merges.txt"):
        assert Tokenizer.from_folder(tmp_path).vocab == small().vocab
        (tmp_path / name).unlink()
    assert Tokenizer.from_folder(tmp_path) is None
    (tmp_path / "vocab.json").write_text("{}")
    assert Tokenizer.from_folder(tmp_path) is None


def test_older_and_foreign_layouts(tmp_path):
    path = tmp_path / "tokenizer.json"
    write_tokenizer_json(path, small(), merges=[" ".join(pair) for pair in small().merges])
    assert Tokenizer.from_tokenizer_json(path).vocab == small().vocab
    content = json.loads(path.read_text())
    content["added_tokens"] = [
        {"content": token, "id": content["model"]["vocab"].pop(token)} for token in (START, END)
    ] + [{"content": "<mine>", "id": 600}]
    path.write_text(json.dumps(content))
    assert Tokenizer.from_tokenizer_json(path).vocab == small().vocab
    merges = tmp_path / "merges.txt"  # no header, Windows' line ends
    merges.write_bytes("\r\n".join([" ".join(pair) for pair in small().merges]).encode())
    assert Tokenizer.from_merges_file(merges).merges == small().merges


def test_two_ways_to_one_token(tmp_path):
    """ab+c and a+bc both make abc: as in the original the later one has the id."""
    ours = Tokenizer([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")])
    assert ours.vocab_size == 518
    assert ours.vocab["abc"] == 515
    with pytest.raises(ValueError, match="ids: got 514, expected the ids of tokens, 0 to 517"):
        ours.decode([514])
    check_files(Tokenizer, ours, tmp_path)


def test_saving_leaves_the_old_files_when_it_fails(tmp_path, monkeypatch):
    small().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = []

    def full(number):  # the disk takes the first file and not the second
        calls.append(number)
        if len(calls) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Tokenizer([("a", "b")]).save(tmp_path)
    assert len(calls) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def whole_files(folder):
    check_files(Tokenizer, small(), folder)
    return {
        BPE_FILE: Tokenizer.from_bpe_file,
        "merges.txt": Tokenizer.from_merges_file,
        "vocab.json": lambda path: Tokenizer.from_merges_file(path.with_name("merges.txt"), path),
        "tokenizer.json": Tokenizer.from_tokenizer_json,
    }


MERGES, VOCAB, WHOLE = "merges.txt", "vocab.json", "tokenizer.json"
HEADER = b"#version: 0.2\n"
CORRUPT = [
    (BPE_FILE, lambda raw: raw[:-20], "not a whole gzip file, fetch it again"),
    (BPE_FILE, lambda raw: raw[:30], "not a whole gzip file"),
    (BPE_FILE, lambda raw: raw[:40] + b"\xff" * 20 + raw[60:], "not a whole gzip file"),
    (BPE_FILE, lambda raw: b"<html>not found</html>", "not a whole gzip file"),
    (BPE_FILE, lambda raw: b"", "empty, expected merges"),
    (BPE_FILE, lambda raw: gzip.compress(b"header\na b\nc\n"), "line 3: got 'c', expected two"),
    (BPE_FILE, lambda raw: gzip.compress(b"header\n\xff \xfe"), "not UTF-8 text"),
    (BPE_FILE, lambda raw: gzip.compress(b"\0" * (65 << 20)), "more than 64 MiB, too large"),
    (MERGES, lambda raw: b"", "empty, expected merges"),
    (MERGES, lambda raw: HEADER + b"a b\n\na c\n", "line 3: got '', expected two symbols"),
    (MERGES, lambda raw: HEADER + b"a b c\n", "line 2: got 'a b c', expected two symbols"),
    (MERGES, lambda raw: HEADER + b"a b\na b\n", r"the merge ('a', 'b') stands 2 times"),
    (MERGES, lambda raw: HEADER + b"a xyz\n", "merge 0, ('a', 'xyz'), joins what is neither"),
    (MERGES, lambda raw: raw + b"\xc3\x28", "not UTF-8 text"),
    (VOCAB, lambda raw: raw[:-5], "not JSON"),
    (VOCAB, lambda raw: b"[" * 100_000, "not JSON that can be read: nested too deeply"),
    (VOCAB, lambda raw: b"[1]", "got a JSON list, expected an object"),
    (VOCAB, lambda raw: b"{}", "has no id for '!', '\"', '#' and 557 more"),
    (VOCAB, lambda raw: raw.replace(b'"cat</w>"', b'"kat</w>"'), "has no id for 'cat</w>'"),
    (VOCAB, lambda raw: raw[:-1] + b', "\\ud800": 7}', "no merge makes: '\\ud800'"),
    (VOCAB, lambda raw: raw.replace(b'"!": 0', b'"!": 1'), "gives one id to two tokens"),
    (VOCAB, lambda raw: raw.replace(b'"!": 0', b'"!": -1'), "not from 0 to 559 for '!'"),
    (VOCAB, lambda raw: raw.replace(b'"!": 0', b'"!": 1e3'), "id of '!' is '1000.0', expected"),
    (VOCAB, lambda raw: raw.replace(b'"!": 0', b'"!": true'), "id of '!' is 'True', expected"),
    (VOCAB, lambda raw: raw.replace(b'"!": 0', b'"!": ' + b"9" * 5000), "4300 digits"),
    (WHOLE, lambda raw: b"\x80abc", "not UTF-8 text"),
    (WHOLE, lambda raw: b"{}", "it has no `model`"),
    (WHOLE, lambda raw: raw.replace(b'"BPE"', b'"Unigram"'), "type is 'Unigram', expected 'BPE'"),
    (
        WHOLE,
        lambda raw: raw.replace(b'"</w>",', b"null,"),
        "end_of_word_suffix is 'None', expected",
    ),
    (WHOLE, lambda raw: raw.replace(b'"vocab":', b'"words":'), "no vocabulary (token -> id)"),
    (WHOLE, lambda raw: raw.replace(b'"merges":', b'"pairs":'), "no list of merges"),
    (WHOLE, lambda raw: raw.replace(b'"merges": [[', b'"merges": [[1, '), 'merge 0: got "[1, '),
    (WHOLE, lambda raw: raw[:-1] + b', "added_tokens": 3}', "`added_tokens` are no list"),
]


@pytest.mark.parametrize(("name", "damage", "message"), CORRUPT, ids=[c[2] for c in CORRUPT])
def test_corrupt_files_give_one_clear_error(name, damage, message, tmp_path):
    load = whole_files(tmp_path)[name]
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: ") as caught:
        load(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_mutated_files_load_or_name_themselves(tmp_path):
    """Whatever happens to a file: a tokenizer that works, or a ValueError with its name."""
    loaders = whole_files(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in loaders}

    @given(st.sampled_from(sorted(loaders)), st.data())
    def check(name, data):
        raw = bytearray(whole[name])
        for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
            raw[place] = data.draw(st.integers(0, 255))
        start = data.draw(st.integers(0, len(raw)))
        del raw[start : start + data.draw(st.sampled_from([0, 0, 1, 9, len(raw)]))]
        (tmp_path / name).write_bytes(raw)
        problem = None
        try:
            tokenizer = loaders[name](tmp_path / name)
        except ValueError as error:
            problem = str(error)
        if problem is None:
            check_back(tokenizer, "a photo of two cats")
        else:
            assert problem.startswith(f"{tmp_path / name}: ")
        (tmp_path / name).write_bytes(whole[name])

    check()


def test_a_missing_file_and_a_wrong_hash(tmp_path):
    for load in (
        Tokenizer.from_bpe_file,
        Tokenizer.from_merges_file,
        Tokenizer.from_tokenizer_json,
    ):
        with pytest.raises(FileNotFoundError, match="nothing"):
            load(tmp_path / "nothing")
    check_files(Tokenizer, small(), tmp_path)
    with pytest.raises(ValueError, match=rf"{BPE_FILE}: its sha256 is .*, expected {BPE_SHA256}"):
        Tokenizer.from_bpe_file(tmp_path / BPE_FILE, sha256=BPE_SHA256)


# ---------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t(None), TypeError, "texts: got NoneType, expected a string or a list of"),
        (lambda t: t(7), TypeError, "texts: got int, expected"),
        (lambda t: t(b"a cat"), TypeError, "texts: got bytes, expected"),
        (lambda t: t({"a": 1}), TypeError, "texts: got dict, expected"),
        (lambda t: t({"a"}), TypeError, "texts: got set, expected"),
        (lambda t: t([]), ValueError, "texts: got an empty list, expected at least one text"),
        (lambda t: t(["a", None]), TypeError, r"texts\[1\]: got NoneType, expected a string"),
        (lambda t: t([b"a"]), TypeError, r"texts\[0\]: got bytes, expected a string \(decode"),
        (lambda t: t(["a", ["b"]]), TypeError, r"texts\[1\]: got list, expected a string"),
        (lambda t: t(np.arange(3)), TypeError, r"texts\[0\]: got int64, expected a string"),
        (lambda t: t("a", context_length=1), ValueError, "context_length: got 1, expected an"),
        (lambda t: t("a", context_length="7"), TypeError, "context_length: got str, expected"),
        (lambda t: t.encode(None), TypeError, "text: got NoneType, expected a string"),
        (lambda t: t.steps(3), TypeError, "text: got int, expected a string"),
        (lambda t: t.clean(b""), TypeError, "text: got bytes, expected a string"),
        (lambda t: t.decode([560]), ValueError, "ids: got 560, expected the ids of tokens, 0 to"),
        (lambda t: t.decode([-1]), ValueError, "ids: got -1, expected the ids of tokens, 0 to 559"),
        (lambda t: t.decode(t(["a"])), TypeError, "ids: got a ndarray, expected .*one row at a"),
        (lambda t: t.decode([1.0]), TypeError, "ids: got a float, expected integers"),
        (lambda t: t.decode("a"), TypeError, "ids: got a str, expected integers"),
        (lambda t: Tokenizer([], pad_id=514), ValueError, "pad_id: got 514, expected .* 0 to 513"),
        (lambda t: Tokenizer([], context_length=2.5), TypeError, "context_length: got float"),
        (lambda t: Tokenizer([("a", "xyz")]), ValueError, "merge 0, .*, joins what is neither"),
        (lambda t: Tokenizer([("a", "b")] * 2), ValueError, r"merge \('a', 'b'\) stands 2 times"),
        (lambda t: Tokenizer([], vocab={}), ValueError, "vocabulary has no id for '!'"),
        (lambda t: train_merges("a", 600), TypeError, "texts: got one string, expected several"),
        (lambda t: train_merges(["a", 1], 600), TypeError, r"texts\[1\]: got int, expected"),
        (lambda t: train_merges(["a"], 513), ValueError, "vocab_size: got 513, expected at least"),
        (lambda t: train_merges(["a"], 600, min_count=0), ValueError, "min_count: got 0, expected"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=f"^(the )?{message}"):
        call(small())


def test_a_too_long_text_is_counted_and_shown():
    words = [f"{n}" for n in range(10)] + ["a cat", "sat", "on", "a", "mat", "with", "a", "hat"]
    text = " ".join(words)
    with pytest.raises(ValueError) as caught:
        real()(["short", text], context_length=14)
    assert str(caught.value) == (
        "texts[1]: got 21 tokens with start and end, expected at most 14; the first words that do "
        "not fit are 'sat on a mat with a' (truncate=True drops what does not fit)"
    )
    assert real()(text, context_length=21).shape == (1, 21)
    cut = real()(text, context_length=14, truncate=True)[0]
    assert real().decode(cut) == "0 1 2 3 4 5 6 7 8 9 a cat"
    for long in ("x" * 5000, "你" * 5000):
        with pytest.raises(ValueError, match="truncate=True") as caught:
            real()(long)
        assert len(str(caught.value)) < 450


@given(st.lists(texts, min_size=1, max_size=3), st.integers(2, 12))
def test_the_words_that_would_be_dropped(batch, context):
    """The first too long text is named; the words before those in the message fit."""
    long = [i for i, text in enumerate(batch) if len(original().encode(text)) > context - 2]
    assume(long)
    words = real().words(batch[long[0]])
    symbols_of = original().byte_encoder
    as_symbols = ["".join(symbols_of[byte] for byte in word.encode()) for word in words]
    lengths = [len(original().bpe(symbols).split(" ")) for symbols in as_symbols]
    fitting = sum(total <= context - 2 for total in accumulate(lengths))
    with pytest.raises(ValueError) as caught:
        real()(batch, context_length=context)
    assert str(caught.value).startswith(
        f"texts[{long[0]}]: got {sum(lengths) + 2} tokens with start and end, expected at most "
        f"{context}; the first words that do not fit are "
        f"{bpe.shorten(' '.join(words[fitting : fitting + 6]))} (truncate=True"
    )


# ------------------------------------------------------------------ batches, threads, copies


def test_sequences_of_all_kinds():
    expected = small()(CAPTIONS)
    for kind in (tuple, np.array, iter, lambda c: (text for text in c)):
        np.testing.assert_array_equal(small()(kind(CAPTIONS)), expected)
    np.testing.assert_array_equal(small()(np.str_("cat")), small()("cat"))


def test_threads_share_a_tokenizer(monkeypatch):
    """With a cache that is emptied all the time."""
    monkeypatch.setattr(tokenizer_module, "CACHED_WORDS", 3)
    shared = Tokenizer(small().merges)
    expected = [small().encode(text) for text in TRICKY]
    with ThreadPoolExecutor(8) as pool:
        for ids in pool.map(lambda _: [shared.encode(text) for text in TRICKY], range(16)):
            assert ids == expected
    assert len(shared._cache) <= 3 + 8


def test_the_cache_stays_small(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "CACHED_WORDS", 100)
    shared = Tokenizer(small().merges)
    for n in range(1000):
        shared.encode("abcdefghij"[n % 10] * (n // 10 + 1))
        assert len(shared._cache) <= 100
    assert max(map(len, shared._cache)) <= tokenizer_module.CACHED_LETTERS


def test_copies():
    for other in (copy.deepcopy(small()), pickle.loads(pickle.dumps(small()))):
        np.testing.assert_array_equal(other(CAPTIONS), small()(CAPTIONS))
    assert repr(small()) == "Tokenizer(560 ids, context 77)"


def test_ftfy_and_regex_load_when_first_used():
    import subprocess

    code = (
        "import miniclip.inputs.tokenizer as t, sys; t.Tokenizer([('a', 'b')])\n"
        "print([m for m in ('ftfy', 'regex') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ------------------------------------------------------------------------------ steps


def test_steps_can_be_read():
    shown = repr(real().steps("A  photo&amp;#33; é\x85"))
    for line in (
        "text     'A  photo&amp;#33; é\\x85'",
        "cleaned  'a photo! é…'",
        "words    a | photo | ! | é | …",
        "length   5 tokens, 7 of 77 with start and end",
        "  bytes     70 68 6f 74 6f",
        "  symbols   p h o t o</w>",
        "  rank 94   h + o  ->  p ho to</w>",
        "  ids       1125 photo</w>",
        "  bytes      c3 a9",
    ):
        assert line in shown.splitlines()


def test_steps_in_a_notebook_are_escaped():
    html = real().steps("<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script" in html
    assert html.count("<tr>") == html.count("</tr>") > 20


def test_steps_of_special_tokens():
    (word,) = real().steps(END).words
    assert (word.merges, word.pieces, word.ids) == ((), (END,), (49407,))
    assert repr(real().steps(""))


# ------------------------------------------------------------------------------- the trainer


@given(
    st.lists(st.text("ab你é 1", max_size=20) | texts, max_size=5),
    st.integers(514, 560),
    st.integers(1, 4),
)
def test_training_equals_the_plain_way(captions, vocab_size, min_count):
    check_training(train_merges, Tokenizer, captions, vocab_size, min_count)


def test_ties_and_texts_without_pairs():
    assert train_merges(["ba ab"], 515, min_count=1) == [("a", "b</w>")]  # first in order
    assert train_merges([], 600) == []
    assert train_merges(["x"], 600) == []
    assert train_merges([START, END], 600, min_count=1) == []


@given(texts)
def test_a_trained_tokenizer_reads_any_text(text):
    check_back(small(), text)
    rows = small()(text, truncate=True)
    assert rows.max() == small().end_id == small().vocab_size - 1


def test_training_learns_words_of_both_languages():
    """A thousand captions' merges make common words one token, in a moment."""
    rng = random.Random(0)
    words = ["photo", "katze", "dog", "你好", "世界", "猫"]
    captions = [" ".join(rng.choices(words, k=6)) for _ in range(3000)]
    ours = Tokenizer(train_merges(iter(captions), 700))
    assert all(len(ours.encode(word)) == 1 for word in words)
