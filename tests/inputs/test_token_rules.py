"""Merges, steps and vocabularies: by hand, at the ends of each rule, and every message whole."""

import gzip
import hashlib
import json

import numpy as np
import pytest
from tokenizer_checks import END, START, original_module

from miniclip.inputs import BPE_FILE, Tokenizer, bpe, train_merges, vocabulary
from miniclip.inputs import tokenizer as tokenizer_module
from miniclip.inputs.steps import Merge, TextSteps, WordSteps
from miniclip.inputs.tokenizer import TextTooLong, check_integer

MERGES = [("a", "b"), ("ab", "c</w>"), ("c", "a"), ("a", "t</w>")]


def said(kind, call, *arguments, **options):
    with pytest.raises(kind) as error:
        call(*arguments, **options)
    return str(error.value)


@pytest.fixture
def tiny():
    return Tokenizer(MERGES)


# ---------------------------------------------------------------- bytes and merges


def test_symbols_of_bytes_are_the_originals():
    assert bpe.byte_symbols() == original_module().bytes_to_unicode()
    symbols = list(original_module().bytes_to_unicode().values())
    assert bpe.base_symbols() == symbols + [symbol + "</w>" for symbol in symbols]
    assert bpe.word_symbols("é") == ["Ã", "©</w>"]
    assert bpe.word_symbols("x") == ["x</w>"]
    assert bpe.symbols_text("Ã©x") == "éx"
    assert bpe.symbols_text("Ãx") == "\ufffdx"


def test_words_mind_no_case():
    """A long s, which lower() leaves as it is, folds to an s."""
    assert bpe.split_words("it'\u017f IT'S") == ["it", "'\u017f", "IT", "'S"]
    assert bpe.split_words("a1b22 !?c<|EndOfText|>") == [
        "a", "1", "b", "2", "2", "!?", "c", "<|EndOfText|>"
    ]  # fmt: skip


def test_shortened_texts():
    assert bpe.shorten("x" * 40) == repr("x" * 40)
    assert bpe.shorten("x" * 41) == repr("x" * 40) + "..."
    assert bpe.shorten("é", 1) == r"'\xe9'"
    assert bpe.shorten("éa", 1) == r"'\xe9'..."


def test_a_chain_of_words():
    chain = bpe.Chain([["a", "b", "c"], ["d"], ["e", "f"]])
    assert [chain.pair(n) for n in range(6)] == [
        ("a", "b"), ("b", "c"), None, None, ("e", "f"), None
    ]  # fmt: skip
    assert [list(chain.word(n)) for n in (0, 3, 4)] == [["a", "b", "c"], ["d"], ["e", "f"]]
    assert list(chain.left) == [-1, 0, 1, -1, -1, 4]
    chain.join(1, "bc")
    assert list(chain.word(0)) == ["a", "bc"]
    assert (chain.pair(0), chain.pair(1), chain.pair(2)) == (("a", "bc"), None, None)
    chain.join(0, "abc")
    assert list(chain.word(0)) == ["abc"]
    chain = bpe.Chain([["a", "b", "c"]])
    chain.join(0, "ab")
    assert (list(chain.word(0)), chain.left[2]) == (["ab", "c"], 0)


def test_merges_in_order_and_each_step_once():
    ranks = {pair: rank for rank, pair in enumerate(MERGES)}
    for word, pieces, expected in (
        ("abc", ["abc</w>"], [0, 1]),
        ("ababab", ["ab", "ab", "a", "b</w>"], [0]),
        ("cat", ["ca", "t</w>"], [2]),
        ("cacat", ["ca", "ca", "t</w>"], [2]),
        ("x", ["x</w>"], []),
    ):
        taken = []
        assert bpe.merge_symbols(bpe.word_symbols(word), ranks, taken) == pieces
        assert taken == expected
        assert bpe.merge_symbols(bpe.word_symbols(word), ranks) == pieces
    assert bpe.merge_symbols(list("aaaaa"), {("a", "a"): 0}) == ["aa", "aa", "a"]
    # a merge that waits for a neighbour which another has taken is no step
    taken = []
    assert bpe.merge_symbols(list("abc"), {("a", "b"): 0, ("b", "c"): 1}, taken) == ["ab", "c"]
    assert taken == [0]


def test_training_counts_pairs():
    texts = ["aab aab", "Aab b!", "b! <|startoftext|> <|endoftext|>"]
    assert bpe.count_words(texts) == {"aab": 3, "b": 2, "!": 2}
    assert train_merges(["xy xy", "zw"], 600) == [("x", "y</w>")]  # of two or more
    assert train_merges(["xy xy", "zw"], 600, min_count=1) == [("x", "y</w>"), ("z", "w</w>")]
    assert train_merges(["xy xy"], 600, min_count=2) == [("x", "y</w>")]
    assert train_merges(["xy xy"], 600, min_count=3) == []
    assert train_merges(["xy xy"], 514) == []
    assert train_merges(["xyz xyz"], 515) == [("x", "y")]
    assert train_merges(["xyz xyz"], 516) == [("x", "y"), ("xy", "z</w>")]
    assert train_merges(["aaaa aaaa"], 517) == [("a", "a"), ("a", "a</w>"), ("aa", "aa</w>")]
    assert said(ValueError, train_merges, [], 513) == (
        "vocab_size: got 513, expected at least 514 (bytes, start, end)"
    )
    assert said(ValueError, train_merges, [], 514, min_count=0) == (
        "min_count: got 0, expected at least 1"
    )
    assert said(TypeError, train_merges, "a", 600) == "texts: got one string, expected several"
    assert said(TypeError, train_merges, ["a", b"x"], 600) == (
        "texts[1]: got bytes, expected a string (decode them first)"
    )


# ---------------------------------------------------------------- steps


def test_a_merge_is_applied_from_left_to_right():
    merge = Merge(0, "a", "a")
    assert merge.apply(list("aaaba")) == ["aa", "a", "b", "a"]
    assert merge.apply(("a",)) == ["a"]
    assert merge.apply([]) == []
    assert Merge(0, "a", "b").apply(["a", "ab", "a", "b"]) == ["a", "ab", "ab"]


SHOWN = """text     'ABC  &amp; cat'
cleaned  'abc & cat'
words    abc | & | cat
ids      513 261 514 339
length   4 tokens, 6 of 77 with start and end

abc
  bytes    61 62 63
  symbols  a b c</w>
  rank 0   a + b  ->  ab c</w>
  rank 1   ab + c</w>  ->  abc</w>
  ids      513 abc</w>

&
  bytes    26
  symbols  &</w>
  ids      261 &</w>

cat
  bytes    63 61 74
  symbols  c a t</w>
  rank 2   c + a  ->  ca t</w>
  ids      514 ca, 339 t</w>"""


def test_steps_as_text(tiny):
    found = tiny.steps("ABC  &amp; cat")
    assert repr(found) == SHOWN
    assert found.ids == tiny.encode("abc & cat")
    words = found.words
    assert words[0] == WordSteps(
        "abc", ("a", "b", "c</w>"), (Merge(0, "a", "b"), Merge(1, "ab", "c</w>")), ("abc</w>",),
        (513,),
    )  # fmt: skip
    assert list(words[0].states()) == [["ab", "c</w>"], ["abc</w>"]]
    shorter = tiny.with_context_length(9).steps("abc")
    assert "1 tokens, 3 of 9 with start and end" in repr(shorter)
    assert tiny.steps(END).words[0] == WordSteps(END, (END,), (), (END,), (517,))


def test_steps_as_a_table():
    word = WordSteps("<", ("<</w>",), (), ("<</w>",), (7,))
    cell = '<td style="text-align: left">{}</td>'

    def row(*cells):
        return "<tr>" + "".join(map(cell.format, cells)) + "</tr>"

    expected = [
        row("<b></b>", "text", "&#x27;&lt;&#x27;"),
        row("", "cleaned", "&#x27;&lt;&#x27;"),
        row("", "words", "&lt;"),
        row("", "ids", "7"),
        row("", "length", "1 tokens, 3 of 5 with start and end"),
        row("<b>&lt;</b>", "bytes", "3c"),
        row("", "symbols", "&lt;&lt;/w&gt;"),
        row("", "ids", "7 &lt;&lt;/w&gt;"),
    ]
    html = TextSteps("<", "<", (word,), 5)._repr_html_()
    assert html == f"<table>{''.join(expected)}</table>"


def test_long_words_are_counted_and_not_shown():
    for count, more in ((40, ""), (41, " ... and 1 more"), (50, " ... and 10 more")):
        lines = dict(Tokenizer([]).steps("x" * count).words[0].lines())
        assert lines["bytes"] == " ".join(["78"] * 40) + more
        assert lines["symbols"].endswith("x" + ("</w>" if count == 40 else "") + more)
        assert lines["ids"].startswith("87 x, 87 x, ")
        assert lines["ids"].count(",") == 39
        assert lines["ids"].endswith(more)


def test_as_many_merges_as_are_shown():
    for count in (40, 41):
        merges = tuple(Merge(n, "a", "b") for n in range(count))
        lines = WordSteps("a", ("a",), merges, ("a",), (1,)).lines()
        assert len([1 for heading, _ in lines if heading.startswith("rank")]) == 40
        assert (("", "... and 1 merges more") in lines) == (count == 41)


# ---------------------------------------------------------------- the tokenizer


def test_everything_that_a_tokenizer_is(tiny):
    assert tiny.vocab_size == 518
    assert (tiny.start_id, tiny.end_id, tiny.pad_id, tiny.context_length) == (516, 517, 0, 77)
    assert tiny.merges == tuple(MERGES)
    assert list(tiny.vocab.values()) == list(range(518))
    assert repr(tiny) == "Tokenizer(518 ids, context 77)"
    given = Tokenizer(MERGES, context_length=np.int64(2), pad_id=517)
    assert given("").tolist() == [[516, 517]]
    assert given("", 4).tolist() == [[516, 517, 517, 517]]
    reversed_ids = {token: 517 - i for token, i in tiny.vocab.items()}
    other = Tokenizer(MERGES, vocab=reversed_ids)
    assert list(other.vocab.values()) == list(range(518))
    assert (other.vocab, other.start_id) == (reversed_ids, 1)


def test_rows_of_another_length(tiny):
    assert tiny.with_context_length(77) is tiny
    assert tiny.with_context_length(5)("abc").tolist() == [[516, 513, 517, 0, 0]]
    assert (tiny.context_length, tiny.with_context_length(2).context_length) == (77, 2)
    for call in (tiny.with_context_length, lambda n: tiny("a", context_length=n)):
        assert said(ValueError, call, 1) == (
            "context_length: got 1, expected an integer of at least 2"
        )
        assert said(TypeError, call, 2.0) == (
            "context_length: got float, expected an integer of at least 2"
        )


def test_a_text_that_just_fits(tiny):
    assert tiny("a a a", 5).tolist() == [[516, *tiny.encode("a a a"), 517]]
    error = said(TextTooLong, tiny, ["b", "a a b"], 4)
    assert error == (
        "texts[1]: got 5 tokens with start and end, expected at most 4; the first words that do "
        "not fit are 'b' (truncate=True drops what does not fit)"
    )
    with pytest.raises(TextTooLong) as caught:
        tiny(["b", "a a b"], 4)
    assert caught.value.place == 1
    assert error == f"texts[1]: {caught.value.reason} (truncate=True drops what does not fit)"
    a = tiny.encode("a")[0]
    assert tiny("a a b", 4, True).tolist() == [[516, a, a, 517]]
    assert tiny("a a b", 2, truncate=True).tolist() == [[516, 517]]
    many = "a " + "b c d e f g h"
    assert "do not fit are 'b c d e f g' (" in said(TextTooLong, tiny, many, 3)


def test_integers_within_their_limits():
    assert check_integer("n", 3, 3, 3) == 3
    assert type(check_integer("n", np.int8(3), 2)) is int
    for value, kind, message in (
        (2, ValueError, "n: got 2, expected an integer, 3 to 5"),
        (6, ValueError, "n: got 6, expected an integer, 3 to 5"),
        ("3", TypeError, "n: got str, expected an integer, 3 to 5"),
    ):
        assert said(kind, check_integer, "n", value, 3, 5) == message
    assert said(ValueError, check_integer, "n", 2, 3) == (
        "n: got 2, expected an integer of at least 3"
    )
    for pad in (-1, 514):
        assert said(ValueError, Tokenizer, [], pad_id=pad) == (
            f"pad_id: got {pad}, expected an integer, 0 to 513"
        )
    assert Tokenizer([], pad_id=513).pad_id == 513


def test_texts_back_from_ids(tiny):
    ids = tiny("abc cat!")[0]
    assert tiny.decode(ids) == "abc cat !"
    assert tiny.decode([*tiny.encode("a"), tiny.end_id, *tiny.encode("b")]) == "a"
    assert tiny.decode([tiny.start_id, *tiny.encode("a b")]) == "a b"
    assert tiny.decode(tiny.encode("ca")[:1]) == "c"
    assert tiny.decode([]) == ""
    assert tiny.decode(iter(tiny.encode("a"))) == "a"
    for wrong in (518, -1):
        assert said(ValueError, tiny.decode, [wrong]) == (
            f"ids: got {wrong}, expected the ids of tokens, 0 to 517"
        )
    assert said(TypeError, tiny.decode, ["a"]) == (
        "ids: got a str, expected integers (one row at a time)"
    )


def test_words_are_remembered_within_bounds(tiny, monkeypatch):
    assert (tokenizer_module.CACHED_WORDS, tokenizer_module.CACHED_LETTERS) == (65_536, 64)
    tiny.encode("one two " + "x" * 64 + " " + "y" * 65)
    assert set(tiny._cache) == {"one", "two", "x" * 64}
    asked = []
    monkeypatch.setattr(tiny, "_pieces", lambda word: asked.append(word) or ["a"])
    tiny.encode("one two three")
    assert asked == ["three"]
    monkeypatch.undo()
    monkeypatch.setattr(tokenizer_module, "CACHED_WORDS", 4)
    tiny.encode("four")
    assert set(tiny._cache) == {"four"}


def test_what_is_no_text(tiny):
    for texts, kind in (
        (None, "NoneType"),
        (b"a", "bytes"),
        ({}, "dict"),
        (set(), "set"),
        (3, "int"),
    ):
        assert said(TypeError, tiny, texts) == (
            f"texts: got {kind}, expected a string or a list of strings"
        )
    assert said(ValueError, tiny, []) == "texts: got an empty list, expected at least one text"
    assert said(TypeError, tiny, ["a", 3]) == "texts[1]: got int, expected a string"
    assert (
        said(TypeError, tiny.clean, b"a")
        == "text: got bytes, expected a string (decode them first)"
    )
    assert said(TypeError, bpe.count_words, [None]) == "texts[0]: got NoneType, expected a string"


# ---------------------------------------------------------------- vocabularies


def merges_file(tmp_path, lines, name="merges.txt"):
    path = tmp_path / name
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if name == BPE_FILE else data)
    return path


LINES = [" ".join(pair) for pair in MERGES]


def test_files_of_merges_with_and_without_their_ends(tmp_path):
    for lines in (LINES, [*LINES, ""], ["#version: 0.2", *LINES], ["#version: 0.2", *LINES, ""]):
        path = merges_file(tmp_path, lines)
        assert Tokenizer.from_merges_file(path).merges == tuple(MERGES)
    for lines in (["a header", *LINES], ["a b", *LINES, ""]):  # any first line is the header
        path = merges_file(tmp_path, lines, BPE_FILE)
        assert Tokenizer.from_bpe_file(path).merges == tuple(MERGES)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert Tokenizer.from_bpe_file(path, sha256=digest).merges == tuple(MERGES)
    assert said(ValueError, Tokenizer.from_bpe_file, path, sha256="00") == (
        f"{path}: its sha256 is {digest}, expected 00"
    )


def test_of_the_originals_file_only_the_first_are_taken(tmp_path, monkeypatch):
    assert vocabulary.BPE_MERGES == 48_894
    path = merges_file(tmp_path, ["header", *LINES], BPE_FILE)
    for count in (2, 3):
        monkeypatch.setattr(vocabulary, "BPE_MERGES", count)
        assert Tokenizer.from_bpe_file(path).merges == tuple(MERGES[:count])


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("merges.txt", ["a b", "a"], "line 2: got 'a', expected two symbols"),
        ("merges.txt", ["#version", "a b", "a"], "line 3: got 'a', expected two symbols"),
        ("merges.txt", ["", "a b"], "line 1: got '', expected two symbols"),
        ("merges.txt", ["a b", "", ""], "line 2: got '', expected two symbols"),
        ("merges.txt", [" ", ""], "empty, expected merges"),
        (BPE_FILE, ["header", "a"], "line 2: got 'a', expected two symbols"),
        (BPE_FILE, ["header", "a b", "a b c"], "line 3: got 'a b c', expected two symbols"),
        ("merges.txt", ["a b", "c d", "a b"], "the merge ('a', 'b') stands 2 times"),
        ("merges.txt", ["a b", "c xy"], "merge 1, ('c', 'xy'), joins what is neither a byte's "
                                        "symbol nor made by another merge"),
        ("merges.txt", ["xy c"], "merge 0, ('xy', 'c'), joins what is neither a byte's symbol nor "
                                 "made by another merge"),
    ],
)  # fmt: skip
def test_lines_that_are_no_merges(name, lines, message, tmp_path):
    path = merges_file(tmp_path, lines, name)
    load = Tokenizer.from_bpe_file if name == BPE_FILE else Tokenizer.from_merges_file
    assert said(ValueError, load, path) == f"{path}: {message}"


def test_files_as_large_as_is_allowed(tmp_path, monkeypatch):
    path = merges_file(tmp_path, LINES)
    packed = merges_file(tmp_path, ["h", *LINES], BPE_FILE)
    raw = packed.read_bytes()
    for file, load, size in (
        (path, Tokenizer.from_merges_file, len(path.read_bytes())),
        (packed, Tokenizer.from_bpe_file, max(len(gzip.decompress(raw)), len(raw))),
    ):
        monkeypatch.setattr(vocabulary, "LARGEST_FILE", size)
        assert load(file).merges == tuple(MERGES)
        monkeypatch.setattr(vocabulary, "LARGEST_FILE", size - 1)
        told = f"{file}: more than 0 MiB, too large for a vocabulary"
        assert said(ValueError, load, file) == told
    monkeypatch.undo()
    assert vocabulary.LARGEST_FILE == 64 * 1024 * 1024


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("!"), "the vocabulary has no id for '!'"),
        (lambda v: [v.pop(t) for t in "!\"#"], "the vocabulary has no id for '!', '\"', '#'"),
        (lambda v: [v.pop(t) for t in "!\"#$"], "the vocabulary has no id for '!', '\"', '#' and 1 "
                                                "more"),
        (lambda v: v.update({"xyz": 3}), "the vocabulary has tokens that no merge makes: 'xyz'"),
        (lambda v: v.update({"!": 518}), "the vocabulary's ids are not from 0 to 517 for '!'"),
        (lambda v: v.update({"!": -1}), "the vocabulary's ids are not from 0 to 517 for '!'"),
        (lambda v: v.update({"!": 517}), "the vocabulary gives one id to two tokens"),
        (lambda v: v.update({"!": "0"}), "the id of '!' is '0', expected an integer"),
        (lambda v: v.update({"!": True}), "the id of '!' is 'True', expected an integer"),
    ],
)  # fmt: skip
def test_vocabularies_word_for_word(change, message, tiny, tmp_path):
    vocab = dict(tiny.vocab)
    merges = merges_file(tmp_path, LINES)
    path = write_json(tmp_path / "vocab.json", vocab)
    assert Tokenizer.from_merges_file(merges, path).vocab == tiny.vocab
    change(vocab)
    write_json(path, vocab)
    assert said(ValueError, Tokenizer.from_merges_file, merges, path) == f"{path}: {message}"


def whole(tiny, **model):
    base = {"type": "BPE", "end_of_word_suffix": "</w>", "merges": LINES, "vocab": dict(tiny.vocab)}
    return {"model": base | model}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it has no `model`"),
        ({"model": [1]}, "it has no `model`"),
        ({"type": "Unigram"}, "not CLIP's tokenizer: type is 'Unigram', expected 'BPE'"),
        ({"end_of_word_suffix": None}, "not CLIP's tokenizer: end_of_word_suffix is 'None', "
                                       "expected '</w>'"),
        ({"merges": "a b"}, "its model has no list of merges"),
        ({"merges": ["a b", "c"]}, "merge 1: got 'c', expected two symbols"),
        ({"merges": [["a", ""]]}, "merge 0: got \"['a', '']\", expected two symbols"),
        ({"merges": [["a", 1]]}, "merge 0: got \"['a', 1]\", expected two symbols"),
        ({"merges": [3]}, "merge 0: got '3', expected two symbols"),
        ({"vocab": [1]}, "it has no vocabulary (token -> id)"),
        ({"vocab": None}, "it has no vocabulary (token -> id)"),
        ({"added_tokens": {}}, None),
        ({"added_tokens": {"a": 1}}, "its `added_tokens` are no list of tokens"),
        ({"added_tokens": [1]}, "its `added_tokens` are no list of tokens"),
        ({"added_tokens": [{"content": START}]}, f"the id of '{START}' is 'None', expected an "
                                                 "integer"),
        ({"added_tokens": [{"content": "other"}]}, None),
        ({"added_tokens": None}, None),
    ],
)  # fmt: skip
def test_files_of_the_tokenizers_library_word_for_word(content, message, tiny, tmp_path):
    if content and not {"model", "added_tokens"} & set(content):
        content = whole(tiny, **content)
    elif "added_tokens" in content:
        content = whole(tiny) | content
    path = write_json(tmp_path / "tokenizer.json", content)
    if message is None:
        assert Tokenizer.from_tokenizer_json(path).vocab == tiny.vocab
    else:
        assert said(ValueError, Tokenizer.from_tokenizer_json, path) == f"{path}: {message}"


def test_what_the_model_says_of_its_own_tokens_wins(tiny, tmp_path):
    added = [{"content": START, "id": 3}, {"content": END, "id": 4}]
    path = write_json(tmp_path / "tokenizer.json", whole(tiny) | {"added_tokens": added})
    assert Tokenizer.from_tokenizer_json(path).vocab == tiny.vocab


def test_what_is_written(tiny, tmp_path):
    Tokenizer([*MERGES, ("Ã", "©</w>")]).save(tmp_path / "new" / "deep")
    folder = tmp_path / "new" / "deep"
    assert sorted(path.name for path in folder.iterdir()) == ["merges.txt", "vocab.json"]
    text = "#version: 0.2\na b\nab c</w>\nc a\na t</w>\nÃ ©</w>\n"
    assert (folder / "merges.txt").read_text("utf-8") == text
    raw = (folder / "vocab.json").read_text("utf-8")
    assert '"Ã©</w>": 516, ' in raw
    assert json.loads(raw) == vocabulary.clip_vocab([*MERGES, ("Ã", "©</w>")])


@pytest.mark.parametrize("settings", [{"context_length": 5}, {"pad_id": 7}])
def test_settings_and_vocabularies_are_handed_on(settings, tiny, tmp_path):
    other = {token: 517 - i for token, i in tiny.vocab.items()}
    Tokenizer(MERGES, vocab=other).save(tmp_path)
    write_json(tmp_path / "tokenizer.json", whole(tiny, vocab=other))
    found = [
        Tokenizer.from_folder(tmp_path, **settings),
        Tokenizer.from_merges_file(tmp_path / "merges.txt", tmp_path / "vocab.json", **settings),
        Tokenizer.from_tokenizer_json(tmp_path / "tokenizer.json", **settings),
    ]
    (tmp_path / "vocab.json").unlink()
    found.append(Tokenizer.from_folder(tmp_path, **settings))
    expected = {"context_length": 77, "pad_id": 0} | settings
    for one in found:
        assert one.vocab == other
        assert {name: getattr(one, name) for name in expected} == expected
    (tmp_path / "tokenizer.json").unlink()
    alone = Tokenizer.from_folder(tmp_path, **settings)
    assert alone.vocab == tiny.vocab
    assert {name: getattr(alone, name) for name in expected} == expected
