"""How a notebook shows a Graph."""

from __future__ import annotations

from html import escape
from typing import Any


class Display:
    """The HTML of a Graph."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Sizes, degrees and memory as a table; reads the row pointers only, O(num_dst).

        Example:
            >>> html = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))._repr_html_()
            >>> "<th>in-degrees</th><td>0 to 2, mean 1.0, 1 nodes without in-edges</td>" in html
            True
        """
        graph: Any = self
        n, m = graph.num_src, graph.num_dst
        rows = {"nodes": f"{n:,}"} if n == m else {"sources": f"{n:,}", "destinations": f"{m:,}"}
        rows["edges"] = f"{graph.num_edges:,}"
        if m:
            degrees = graph.rowptr.diff()
            low, high = int(degrees.min()), int(degrees.max())
            rows["in-degrees"] = f"{low:,} to {high:,}, mean {graph.num_edges / m:.1f}"
            if low == 0:
                rows["in-degrees"] += f", {int((degrees == 0).sum()):,} nodes without in-edges"
        rows["memory"] = f"{graph.nbytes / 1e6:,.1f} MB with the transpose"
        rows["tensors"] = f"{graph.index_dtype} on {graph.device}"
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in rows.items()
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{cells}</table>"
