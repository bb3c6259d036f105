"""The parser of all commands: an error is one line, in the words that the user typed."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse's parser, with options written out in full, and suggestions for mistyped ones.

    hints: name of a positional argument -> what to do where it is missing.
    aliases: an argument of the Python function -> the option (its `dest`) that sets it, where
    both have different names.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})
        self.hints: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        self.set_defaults(parser=self)  # the innermost command's is the one that stays

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but a mistyped option is told before the one that is missing for it."""
        arguments = sys.argv[1:] if args is None else list(args)
        for argument in self.own(arguments):
            option = argument.partition("=")[0]
            if re.fullmatch(r"--\w[\w-]*", option) and option not in self._option_string_actions:
                known = did_you_mean(option, self._option_string_actions)
                self.error(f"{option}: {self.prog} has no such option{known}")
        return super().parse_known_args(arguments, namespace)

    def own(self, arguments: Sequence[str]) -> Sequence[str]:
        """Those before "--" and, where commands follow, before the first of them."""
        has_commands = any(isinstance(a, argparse._SubParsersAction) for a in self._actions)
        for n, argument in enumerate(arguments):
            if argument == "--" or (has_commands and not argument.startswith("-")):
                return arguments[:n]
        return arguments

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        expected = f"expected one of {', '.join(choices)}{did_you_mean(str(value), choices)}"
        raise argparse.ArgumentError(action, f"got {value!r}, {expected}")

    def error(self, message: str) -> NoReturn:
        """One line and exit code 2."""
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing:
            message = f"{missing[1]}: missing"
            message += "".join(hint for name, hint in self.hints.items() if name in missing[1])
        message = message.removeprefix("argument ")
        self.exit(2, f"miniclip: error: {message} (see {self.prog} --help)\n")

    def typed(self, message: str, options: argparse.Namespace) -> str:
        """An error of a Python function, its argument under the name that the user typed.

        "count: got 0" -> "--count: got 0", where this command has that option and it was given.
        """
        found = re.match(r"(\w+)((?:\[[^\]]*\])?: )", message)
        if found is None:
            return message
        dest = self.aliases.get(found[1], found[1])
        for action in self._actions:
            given = getattr(options, dest, None) != self.get_default(dest)
            if action.dest == dest and given:
                name = action.option_strings[-1] if action.option_strings else action.metavar
                return f"{name or dest}{message[found.end(1) :]}"
        return message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question after a message, or nothing where no known word is like it."""
    close = difflib.get_close_matches(word, list(known))
    return f"; did you mean {close[0]}?" if close else ""


def show_help(options: argparse.Namespace) -> int:
    """What a command that needs another one after it does without."""
    options.parser.print_help()
    return 0
