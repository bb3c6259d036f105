"""Notes on standard error: once for each thing, and never an error."""

import io
import sys

import pytest

from miniclip import notes
from miniclip.notes import in_one_line


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(notes, "_said", set())


def test_each_thing_is_said_once(capsys):
    notes.say_once("kernels", "compiling")
    notes.say_once("kernels", "compiling again")
    notes.say_once("cache", "no home")
    notes.say("twice")
    notes.say("twice")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"miniclip: {line}" for line in ("compiling", "no home", "twice", "twice")
    ]


@pytest.mark.parametrize("stream", [None, "closed", "broken"])
def test_it_is_no_error_where_nobody_can_hear_it(stream, monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError("gone")

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", {None: None, "closed": closed, "broken": Broken()}[stream])
    notes.say("hello")


def test_it_is_heard_at_once(monkeypatch):
    """Not when the buffer is full: a program may be killed before."""

    class Stream(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    notes.say("hello")
    assert (stream.getvalue(), stream.flushed) == ("miniclip: hello\n", 1)


def test_an_exception_in_one_line():
    named = OSError(2, "gone", "file")
    assert in_one_line(named) == "file: gone"
    named.strerror = None
    assert in_one_line(named) == str(named)
    assert in_one_line(ValueError("x: got  2,\n    expected 3")) == "x: got  2, expected 3"
    assert in_one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
