"""The gallery: a page for each file of examples/, with its source and the file to download."""

from __future__ import annotations

import ast
import itertools
import runpy
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from written import DOCS, ROOT, write

if TYPE_CHECKING:
    from sphinx.application import Sphinx

EXAMPLES = ROOT / "examples"
# Examples that draw a picture, which is shown on their page, when run with its name.
PICTURES = {"explain_karate": "karate.png"}


def sources() -> list[Path]:
    """The examples: programs of Python, and those of the folder cpp."""
    return sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("cpp/*.py"), *EXAMPLES.glob("cpp/*.cpp")])


def page(source: Path) -> str:
    """The page of an example, in MyST."""
    text = source.read_text()
    if source.suffix == ".py":
        summary = ast.get_docstring(ast.parse(text))
        language = "python"
    else:
        comment = itertools.takewhile(lambda line: line.startswith("//"), text.split("\n"))
        summary = "\n".join(line[2:].removeprefix(" ") for line in comment)
        language = "cpp"
    assert summary, f"{source} has no docstring or comment at its top"
    inside = Path("../../..") / source.relative_to(ROOT)
    parts = [f"# {source.name}", to_markdown(summary)]
    if source.stem in PICTURES:
        parts.append(f"![what it draws](../../_build/pictures/{PICTURES[source.stem]})")
    parts += [
        f"{{download}}`Download {source.name} <{inside}>`",
        f"```{{literalinclude}} {inside}\n:language: {language}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def to_markdown(summary: str) -> str:
    """A docstring's text: indented paragraphs become blocks of code."""
    return "\n\n".join(
        f"```\n{textwrap.dedent(paragraph)}\n```" if paragraph.startswith("  ") else paragraph
        for paragraph in summary.split("\n\n")
    )


def draw() -> None:
    """Runs the examples that draw, once for each version of their source."""
    folder = DOCS / "_build" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for stem, name in PICTURES.items():
        source, picture = EXAMPLES / f"{stem}.py", folder / name
        if picture.is_file() and picture.stat().st_mtime > source.stat().st_mtime:
            continue
        before = sys.argv[:]
        sys.argv[:] = [str(source), str(picture)]
        try:
            runpy.run_path(str(source), run_name="__main__")
        finally:
            sys.argv[:] = before


def generate(_: Sphinx) -> None:
    """Writes the pages and the pictures."""
    draw()
    write("gallery", {f"{source.stem}.md": page(source) for source in sources()})


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the pages before Sphinx looks for files."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
