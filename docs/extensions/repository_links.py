"""Links that lead out of docs/, such as ../miniclip/ops/loss.py, which GitHub follows by itself.

On the site a module leads to its page of the reference. Anything else leads to the repository, once
pyproject.toml names its address under [project.urls] as Source; until then to a copy of the file,
and a folder is words only. A link to what does not exist is left alone, for MyST to warn of.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent


class RepositoryLinks(SphinxTransform):
    default_priority = 5  # before links are resolved and downloads are collected

    def apply(self, **kwargs: Any) -> None:
        kinds = (addnodes.pending_xref, addnodes.download_reference)
        links = [n for n in self.document.findall(nodes.Element) if isinstance(n, kinds)]
        for link in links:
            path = self.path_of(link)
            if path.exists() and ROOT in path.parents and DOCS not in (path, *path.parents):
                link.replace_self(self.leading_to(path, link))

    def path_of(self, link: nodes.Element) -> Path:
        """What a link of MyST's means on disk."""
        target: str = link["reftarget"]
        if link.get("refdomain") == "doc":  # a .md file: MyST has cut its ending off
            target += ".md"
        page = Path(self.env.doc2path(self.env.docname))
        return Path(os.path.normpath(page.parent / target.partition("#")[0]))

    def leading_to(self, path: Path, link: nodes.Element) -> nodes.Element:
        inside = path.relative_to(ROOT)
        document, words = reference_page(inside), link.children
        source = self.config.repository_source
        if document in self.env.found_docs:
            where = {"refdomain": "doc", "reftype": "myst", "reftarget": document}
            origin = {"refdoc": self.env.docname, "reftargetid": None, "refexplicit": True}
            return addnodes.pending_xref("", *words, **where, **origin)
        if source:
            return nodes.reference("", "", *words, refuri=f"{source}/blob/main/{inside.as_posix()}")
        if path.is_dir():
            return nodes.inline("", "", *words)
        copied = "/" + os.path.relpath(path, DOCS)
        return addnodes.download_reference("", "", *words, reftarget=copied, refexplicit=True)


def reference_page(inside: Path) -> str:
    """miniclip/ops/loss.py -> api/miniclip.ops.loss, miniclip/ops -> api/miniclip.ops."""
    parts = inside.with_suffix("").parts
    return "api/" + ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("repository_source", "", "env", str)
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True}
