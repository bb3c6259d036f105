"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

from miniclip.cli.parser import Parser

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

# Of a command whose option takes several words: the last of them may have been meant otherwise.
AFTER_A_LIST = "; all words after {option} belong to it: put {name} before it, or -- between"


def needs(options: argparse.Namespace, other: str, *names: str) -> None:
    """Raise ValueError for an option that was given and does nothing without another one."""
    if getattr(options, other):
        return
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(
                f"{as_typed(name)}: got {getattr(options, name)!r} without {as_typed(other)}, "
                "which it belongs to"
            )


def excludes(options: argparse.Namespace, other: str, *names: str) -> None:
    """Raise ValueError for two options that cannot both be done."""
    if is_given(getattr(options, other)):
        for name in names:
            if is_given(getattr(options, name)):
                raise ValueError(
                    f"{as_typed(name)}: got it beside {as_typed(other)}, expected one of both"
                )


def is_given(value: Any) -> bool:
    """Whether an option has a value of the user's: 0 is one."""
    return value is not None and value is not False


def as_typed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def add_model_options(parser: Parser) -> None:
    """What every command that loads a model takes."""
    add_backend_option(parser)
    add_activation_option(parser)


def add_activation_option(parser: Parser) -> None:
    parser.add_argument(
        "--activation",
        choices=["quick_gelu", "gelu", "gelu_tanh"],
        help="activation of a .safetensors file that has no configuration beside it; default: what "
        "the configuration or the known name says",
    )


def add_backend_option(parser: Parser) -> None:
    parser.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "numpy", "numba", "cupy"],
        help="what computes; default: %(default)s, the fastest that is installed",
    )
