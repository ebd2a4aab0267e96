"""The pages of the site: programs run, links lead somewhere, nothing public is left out."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from layers import LAYERS, PROMISES

import gat_ext

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDERS = [DOCS, DOCS / "guides", DOCS / "notes"]
PAGES = [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
INCLUDED = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
# Run by tests of their own.
ELSEWHERE = {"distributed", "mini_batches", "own_data", "export"}
NEEDS = {"coming_from_pyg": "torch_geometric"}
PROGRAM = re.compile(r"```python\n(# \w+\.py\n.*?)```", re.DOTALL)
RUN = [page for page in PAGES if page.stem not in ELSEWHERE and PROGRAM.search(page.read_text())]


def with_cost(page: Path):
    slow = [pytest.mark.slow] if page.stem == "compile" else []  # compiles and exports
    return pytest.param(page, marks=slow, id=page.stem)


@pytest.mark.parametrize("page", [with_cost(page) for page in RUN])
def test_programs_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        for program in PROGRAM.findall(page.read_text()):
            name = program.split("\n")[0].removeprefix("# ")
            exec(compile(program, f"{page.name}: {name}", "exec"), {"__name__": "__main__"})
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)


def test_guides_have_programs_and_limits() -> None:
    for page in sorted((DOCS / "guides").glob("*.md")):
        text = page.read_text()
        assert PROGRAM.search(text), page
        assert re.search(r"limits", text, re.IGNORECASE), page


def test_every_page_is_in_a_toctree() -> None:
    patterns = []
    for page in PAGES:
        for body in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            lines = [line for line in body.split("\n") if line and not line.startswith(":")]
            patterns += [str(page.parent.relative_to(DOCS) / line) for line in lines]
    names = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} - {"index"}
    left = [name for name in names if not any(fnmatch.fnmatch(name, p) for p in patterns)]
    assert not left
    assert {"_generated/reference/*", "_generated/gallery/index"} <= set(patterns)


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    return importlib.import_module


def test_the_reference_has_every_public_name(extension) -> None:
    pytest.importorskip("torch_geometric")  # for gat_ext.interop.pyg
    reference = extension("reference_pages")
    pages = reference.pages()
    rooms = {room.name for room in pkgutil.iter_modules(gat_ext.__path__) if room.ispkg}
    for room in rooms - {"ops"}:  # private
        assert f"gat_ext.{room}.rst" in pages, room
    for name in reference.public_modules():
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            if f"gat_ext.{public}.rst" not in pages:
                found = rf"(:: |``)({re.escape(name)}\.)?{public}(``|\n)"
                assert re.search(found, pages[f"{name}.rst"]), (name, public)


@pytest.mark.parametrize("path", [*PAGES, *INCLUDED], ids=lambda path: f"{path.relative_to(ROOT)}")
def test_links_lead_to_pages(path: Path, extension) -> None:
    links = extension("links")
    rewritten = links.rewrite(path.read_text(), path, DOCS)  # raises if no page shows a target
    for target, section in links.LINK.findall("".join(links.CODE.split(rewritten)[::2])):
        page = DOCS / target
        assert page.exists() or "_generated" in target, target
        if section and page.suffix == ".md" and page.exists():
            text = page.read_text()
            for included in re.findall(r"```\{include\} (\S+)", text):
                text += (page.parent / included).read_text()
            titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert section[1:] in slugs, section


def test_a_link_that_no_page_shows_is_an_error(extension) -> None:
    links = extension("links")
    page = DOCS / "guides" / "walks.md"
    assert links.rewrite("[a](../limits.md#x) `[b](c)`", page, DOCS) == "[a](limits.md#x) `[b](c)`"
    example = "[a](../../examples/own_data.py)"
    assert links.rewrite(example, page, page.parent) == "[a](../_generated/gallery/own_data.rst)"
    with pytest.raises(ValueError, match=r"walks\.md links to \.\./\.\./setup\.py, which no page"):
        links.rewrite("[a](../../setup.py)", page, DOCS)


def test_the_cheat_sheet_has_every_layer_and_promise(extension) -> None:
    pytest.importorskip("torch_geometric")
    rows = extension("cheat_sheet").table().split("\n- * ")[1:]
    cells = {row.split("\n  * ")[0]: row.rstrip("`\n").split("\n  * ")[1:] for row in rows}
    position = list(LAYERS).index("AGNNConv")
    assert cells[""] == [*LAYERS] or [*LAYERS] == [name.strip() for name in cells.pop(" ", [])]
    assert all(len(row) == len(LAYERS) for row in cells.values()), cells
    assert not cells[PROMISES["sparse"]][position].strip()
    assert cells[PROMISES["forms"]][position] == "✓"
