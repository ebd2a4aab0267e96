"""The cheat sheet: which layer supports what, from the rows of tests/layers.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from written import ROOT, write

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Promises that say how the tests compare a layer, rather than what it does.
OF_TESTS = {"plain call", "pyg", "pyg_pairs", "pyg_weights"}
INTRODUCTION = """
# Cheat sheet: layers and what they support

A mark means that tests check it for this layer. No mark: the layer does not promise it, or has a
call of its own for it; the [reference](../reference/gat_ext.nn.rst) says which. The table is
generated from the rows of `tests/layers.py`, by which the tests are chosen.

"""


def table() -> str:
    """The page, in MyST."""
    sys.path.insert(0, str(ROOT / "tests"))
    from layers import LAYERS, PROMISES

    from gat_ext.interop import pyg

    lines = ["- * ", *(f"  * {name}" for name in LAYERS)]
    for promise, meaning in PROMISES.items():
        if promise not in OF_TESTS:
            lines.append(f"- * {meaning}")
            for layer in LAYERS.values():
                always = promise == "edge_attr" and "edge_dim" in layer.fixed
                has = always or layer.supports(promise)
                lines.append("  * " + ("✓" if has else ""))
    lines.append("- * PyG has the layer: `patch_pyg` swaps it, state_dicts load")
    lines += ["  * " + ("✓" if name in pyg.__all__ else "") for name in LAYERS]
    options = ":header-rows: 1\n:class: cheat-sheet"
    return f"{INTRODUCTION.lstrip()}```{{list-table}}\n{options}\n\n" + "\n".join(lines) + "\n```\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the page before Sphinx looks for files."""
    app.connect("builder-inited", lambda _: write("cheat_sheet", {"layers.md": table()}))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
