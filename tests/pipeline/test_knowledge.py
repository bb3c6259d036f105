"""What a model knows: the words of its captions, kept in a file, and which of a text are new."""

import json

import pytest

from miniclip.checkpoints import CheckpointError
from miniclip.pipeline import Knowledge, knowledge


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red, round circle!", ["a", "red", "round", "circle"]),
        ("2 cats & 10 dogs", ["2", "cats", "1", "0", "dogs"]),
        ("don't", ["don", "'t"]),
        ("!?... --", []),
        ("", []),
        ("猫和狗 cat", ["猫", "和", "狗", "cat"]),
        ("ねこネコ", ["ね", "こ", "ネ", "コ"]),
        ("\U00020000\U0002a6df", ["\U00020000", "\U0002a6df"]),
        ("猫cat", ["猫cat"]),  # of two scripts, and so not without spaces
        ("кот", ["кот"]),
    ],
)
def test_words_of_a_text(text, words):
    assert knowledge.words_of(text) == words


@pytest.mark.parametrize(
    ("sign", "without"),
    [
        ("\u303f", False), ("\u3040", True), ("\u9fff", True), ("\ua000", False),
        ("\U0001ffff", False), ("\U00020000", True), ("a", False),
    ],
)  # fmt: skip
def test_scripts_without_spaces(sign, without):
    assert knowledge.is_without_spaces(sign) == without
    assert knowledge.is_without_spaces(sign + "猫") == without
    assert knowledge.is_without_spaces("猫" + sign) == without


def test_knowledge_is_kept_added_to_and_asked(tmp_path):
    shapes = Knowledge.of("shapes", ["A red circle.", "a red square"])
    assert shapes == Knowledge("shapes", frozenset(["a", "red", "circle", "square"]))
    both = shapes.and_then(Knowledge.of("animals", ["a cat", "eine Mäuse"]))
    assert both.about == "shapes; then animals"
    assert both.words == {"a", "red", "circle", "square", "cat", "eine", "mäuse"}
    assert both.unseen("a dog, a CAT, a dog and red birds") == ["dog", "and", "birds"]
    assert both.unseen("a cat") == []
    assert Knowledge.read(tmp_path) is None
    both.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["knows.json"]
    assert Knowledge.read(tmp_path) == both
    Knowledge.of("b", ["ü a"]).save(tmp_path)
    text = (tmp_path / "knows.json").read_text("utf-8")
    assert text == '{\n "about": "b",\n "words": [\n  "a",\n  "ü"\n ]\n}\n'


@pytest.mark.parametrize("content", [{}, {"about": "x"}, {"words": []}, {"about": 3, "words": []},
                                     {"about": "x", "words": "a"}])  # fmt: skip
def test_a_file_of_knowledge_that_is_none(content, tmp_path):
    (tmp_path / "knows.json").write_text(json.dumps(content))
    message = r"knows\.json: expected `about`, a text, and a list `words`$"
    with pytest.raises(CheckpointError, match=message):
        Knowledge.read(tmp_path)
