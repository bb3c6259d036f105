"""The inference plans of a backend, if it has any: which they are, the backend says.

A backend's `ENGINE` is the name of a module with a class `Plan`, or None. It is a name and not an
import, because engines are built on backends, and because they load when first used.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from miniclip.ops.array import Array


class InferencePlan(Protocol):
    """What the class `Plan` of an engine offers; it is made by `Plan(network)`."""

    network: Any

    def of(self, kind: str) -> Callable[[Array], Array] | None:
        """What to call instead of the "image" or "text" tower; None where the tower itself."""

    def why_not(self, kind: str) -> str | None:
        """Why a tower runs by its modules at this moment; None if it has a plan."""

    def compile(self) -> None:
        """Make the plans of all towers now, from the weights as they are."""

    def describe(self) -> str:
        """Each tower's steps, or why it runs by its modules."""


def plan_for(network: Any, last: InferencePlan | None) -> InferencePlan | None:
    """The plan of a network on the backend it is on; None if that has no engine.

    last: the plan of before, which is kept if it is of this network and this engine.
    """
    engine: str | None = getattr(network.ops, "ENGINE", None)
    if engine is None:
        return None
    kind = import_module(engine).Plan
    if isinstance(last, kind) and last.network is network:
        return last
    plan: InferencePlan = kind(network)
    return plan
