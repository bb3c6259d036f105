r"""Wrong variants: a module of miniclip, executed again from its source with one passage changed.

A test or a grader that has never refused anything proves little. Give it a wrong variant of the
code that it checks, and the same code unchanged as the control:

    bug = Bug("no weight", "layer_norm", "ops.norm", "dx_hat = dy * weight\n", "dx_hat = dy\n")
    wrong = planted(bug).layer_norm_backward

The real module stays as it is, and nothing is written to disk.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parents[1]  # miniclip's own folder


@dataclass(frozen=True)
class Bug:
    """One passage of miniclip's source, and what a tired programmer might have written there."""

    name: str  # what is wrong, in words
    where: str  # what it shows in: an op, a kind of tower, or whatever the check calls it
    module: str  # without the package's name: "ops.norm"
    old: str  # the passage as it is; it occurs once in the module's file
    new: str

    @property
    def path(self) -> Path:
        """The module's file, relative to the package's folder.

        Raises ValueError if miniclip has no such module.
        """
        parts = self.module.split(".")
        path = Path(*parts)
        file = path / "__init__.py" if (PACKAGE / path).is_dir() else path.with_suffix(".py")
        if not all(part.isidentifier() for part in parts) or not (PACKAGE / file).is_file():
            raise ValueError(
                f"module: got {self.module!r}, expected a module of miniclip such as 'ops.norm'"
            )
        return file

    def changed_source(self) -> str:
        """The source of the whole module with the passage changed.

        Raises ValueError unless the old passage occurs exactly once.
        """
        source = (PACKAGE / self.path).read_text(encoding="utf-8")
        count = source.count(self.old)
        if count != 1:
            raise ValueError(
                f"{self.name}: the old text occurs {count} times in {self.module}, expected once: "
                f"{self.old!r}"
            )
        return source.replace(self.old, self.new)


def unchanged(module: str, where: str = "") -> Bug:
    """The control: a `Bug` that only adds an empty line at the end. Raises as `Bug` does."""
    source = (PACKAGE / Bug("", "", module, "", "").path).read_text(encoding="utf-8")
    return Bug("nothing", where, module, source, source + "\n")


def planted(bug: Bug) -> ModuleType:
    """The module with the bug, executed anew under a name of its own.

    Its functions and classes call each other; whatever they import is the real miniclip, and the
    real miniclip still calls the real module. Raises ValueError as `Bug.changed_source` does,
    and whatever executing the changed source raises.
    """
    name = f"miniclip.{bug.module}_planted"
    source = bug.changed_source()
    module = module_from_spec(ModuleSpec(name, loader=None))
    module.__file__ = str(PACKAGE / bug.path)
    sys.modules[name] = module  # for its dataclasses, which look their module up
    try:
        # without dont_inherit, this file's own __future__ imports would hold for the module as well
        exec(compile(source, module.__file__, "exec", dont_inherit=True), module.__dict__)
    finally:
        del sys.modules[name]
    return module
