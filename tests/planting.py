"""Planting bugs: a module of the package with one line of its source changed."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    name: str  # what is wrong, in words
    where: str  # "op" that the bug is in, found in its module
    module: str  # "ops.norm"
    old: str  # the text as it stands, once in the module
    new: str  # the text as a tired programmer might have written it


def planted(bug):
    """The module of the bug, newly executed from the changed source."""
    real = importlib.import_module(f"miniclip.{bug.module}")
    with open(real.__file__, encoding="utf-8") as file:
        source = file.read()
    assert source.count(bug.old) == 1, f"{bug.name}: its text stands {source.count(bug.old)} times"
    spec = importlib.util.spec_from_loader(f"{real.__name__}_planted", loader=None)
    module = importlib.util.module_from_spec(spec)
    module.__file__, module.__package__ = real.__file__, real.__package__
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source.replace(bug.old, bug.new), real.__file__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module
