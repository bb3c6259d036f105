"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What every command that loads a model takes."""
    add_backend_option(parser)
    add_activation_option(parser)


def add_activation_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--activation",
        choices=["quick_gelu", "gelu", "gelu_tanh"],
        help="of a .safetensors file that has no configuration beside it",
    )


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "numpy", "numba", "cupy"],
        help="default: auto",
    )
