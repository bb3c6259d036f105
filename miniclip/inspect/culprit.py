"""In which module did the first difference of two traces arise?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True, eq=False)
class Call:
    """One pass through a module, and the call of the module around it that it was part of."""

    name: str
    direction: str  # FORWARD or BACKWARD
    parent: Call | None


class Origin(NamedTuple):
    """Which call a tensor belongs to: it went in, or came out; maybe a parameter's gradient."""

    call: Call
    went_in: bool = False
    of_parameter: bool = False


@dataclass(frozen=True)
class Culprit:
    """The innermost module that was given what is right and made something else of it."""

    name: str
    direction: str  # "forward" or "backward"

    def __str__(self) -> str:
        return f"{self.direction} of {self.name}"


def find_culprit(
    first: str | None, origins: Mapping[str, Origin], compared: set[str]
) -> Culprit | None:
    """The module to blame for the first difference, a tensor's name.

    Everything compared before it is right. If it came out of a module, that module is to blame; if
    it went in, the module around, which made it from right parts. Where the other side does not
    know what went into a module (PyTorch has none of our `visual.pool`), its neighbours inside the
    module around may as well have spoilt it: then that one is named.
    """
    if first is None or first not in origins:
        return None
    known = {id(o.call) for name, o in origins.items() if o.went_in and name in compared}
    origin = origins[first]
    suspect = origin.call.parent if origin.went_in else origin.call
    while suspect is not None and id(suspect) not in known:
        suspect = suspect.parent
    return None if suspect is None else Culprit(suspect.name, suspect.direction)
