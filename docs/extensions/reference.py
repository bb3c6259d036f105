"""The pages of the reference, written into docs/api before the site is read: one for each file.

A package's page shows its own docstring and names, then its files with their first lines. (Sphinx's
own apidoc does the same without the first lines, under headings such as "Submodules".)
"""

from __future__ import annotations

import ast
from pathlib import Path

from docstrings import inline
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ("__main__",)


def write_pages(app: Sphinx) -> None:
    """Pages whose text is the same are not touched, so that they are not built again."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.rst": page(name, path) for name, path in modules(ROOT / "miniclip").items()}
    for name, text in pages.items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for file in folder.glob("*.rst"):
        if file.name not in pages:
            file.unlink()


def modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file, of a package, of all that is in it, in the order of the names."""
    found = {package.name: package / "__init__.py"}
    for path in sorted(package.iterdir()):
        if (path / "__init__.py").exists():
            found |= {f"{package.name}.{name}": file for name, file in modules(path).items()}
        elif path.suffix == ".py" and path.stem not in ("__init__", *LEFT_OUT):
            found[f"{package.name}.{path.stem}"] = path
    return found


def page(name: str, path: Path) -> str:
    """The reStructuredText of a module's page."""
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", ""]
    if path.name == "__init__.py":
        below = {n: p for n, p in modules(path.parent).items() if n.count(".") == 1}
        lines += [".. list-table::", "   :widths: 30 70", ""]
        for child, file in below.items():
            short = child.partition(".")[2]
            lines.append(f"   * - :doc:`{short} <{name}.{short}>`")
            lines.append(f"     - {inline(first_line(file))}")
        lines += ["", ".. toctree::", "   :hidden:", ""]
        lines += ["   {0} <{1}.{0}>".format(n.partition(".")[2], name) for n in below]
    return "\n".join(lines) + "\n"


def first_line(path: Path) -> str:
    """The first sentence of a file's docstring, which may take two lines."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
