"""Links to files outside docs/, which pages and included files have for readers of the repository.

Pages are also read as files of the repository, so they link to files: ``../../examples/mine.py``.
On the site such a link leads to the page that shows the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from written import DOCS, ROOT

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# File or folder of the repository → the page of the site that shows it.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks": "measuring.md",
    "benchmarks/README.md": "measuring.md",
    "examples": "_generated/gallery/index.rst",
    "examples/cpp": "_generated/gallery/cpp/index.rst",
}
LINK = re.compile(r"(?<=\]\()([^()\s#:]+)((?:#[^()\s]*)?)(?=\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def target_page(target: Path) -> Path | None:
    """The file in docs/ to which a link to ``target``, an absolute path, leads."""
    if target.is_relative_to(DOCS):
        return target
    inside = target.relative_to(ROOT)
    if str(inside) in PAGES:
        return DOCS / PAGES[str(inside)]
    if inside.parts[0] == "examples" and target.suffix in {".py", ".cpp"} and target.is_file():
        return DOCS / "_generated" / "gallery" / Path(*inside.parts[1:]).with_suffix(".rst")
    return None


def rewrite(text: str, of: Path, shown_in: Path) -> str:
    """The text of the file ``of`` with its links as a page in the folder ``shown_in`` has them.

    Raises:
        ValueError: a link leads to a file that no page shows.
    """

    def replace(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(of.parent / match[1]))
        page = target_page(target)
        if page is None:
            raise ValueError(f"{of} links to {match[1]}, which no page of the site shows")
        return os.path.relpath(page, shown_in) + match[2]

    pieces = CODE.split(text)  # every second piece is code
    pieces[::2] = [LINK.sub(replace, piece) for piece in pieces[::2]]
    return "".join(pieces)


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrites pages and the files that they include."""

    def of_page(app: Sphinx, name: str, source: list[str]) -> None:
        path = Path(app.env.doc2path(name))
        if path.suffix == ".md":
            source[0] = rewrite(source[0], path, path.parent)

    def of_included(app: Sphinx, path: Path, name: str, source: list[str]) -> None:
        included = Path(os.path.normpath(DOCS / path))
        source[0] = rewrite(source[0], included, Path(app.env.doc2path(name)).parent)

    app.connect("source-read", of_page)
    app.connect("include-read", of_included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
