"""The site: these pages as they are, and an API reference made from the docstrings.

sphinx-build -W --keep-going docs docs/_build/html
"""

import os
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "extensions")]
os.environ["NUMBA_DISABLE_JIT"] = "1"  # kernels stay Python functions, with their docstrings

META = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "miniclip"
author = project_copyright = "The miniclip authors"
version = release = META["version"]
html_title = f"miniclip {version}"
html_theme = "furo"
smartquotes = False  # "seen" is a string that can be typed
exclude_patterns = ["_build", "extensions"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docstrings",
    "reference",
    "repository_links",
]

# Pages. Anchors are named as GitHub names them.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
repository_source = META.get("urls", {}).get("Source", "")

# The reference. Names are in the order of the source.
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "special-members": "__call__",
    "member-order": "bysource",
    "ignore-module-all": True,  # each name once, where it is defined
}
autodoc_preserve_defaults = True  # as the source writes them
add_module_names = False  # a page names its module once
autosummary_generate = False

# Names in the text must exist. Types in signatures are let off where they have no page here:
# Python's own and other packages', type variables, and names imported for type checkers only.
nitpicky = True
nitpick_ignore_regex = [("py:(class|obj)", r"(?!miniclip\.).*|.*\.(T|Item|_\w+)")]
suppress_warnings = ["ref.python"]  # such a name may be that of two classes
