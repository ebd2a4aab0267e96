"""Pages that are computed at build time, in docs/_generated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent


def write(folder: str, pages: Mapping[str, str]) -> None:
    """Makes ``pages``, texts by file name, the contents of docs/_generated/``folder``.

    A file whose text is the same keeps its time, so that Sphinx does not read it again.
    """
    place = DOCS / "_generated" / folder
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = place / name
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
