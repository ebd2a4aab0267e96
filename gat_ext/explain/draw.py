"""Draws the edges that a node attends to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gat_ext.explain.measures import TopEdges

_COLOURS = "cividis"  # suits colour-blind readers
_NODE, _CENTRE = "#999999", "#D55E00"
_MARGIN = 12  # points between the centre of a node and the ends of its edges
_LOOP = 0.12  # radius of a self-loop; rings are 1 apart


def draw_edges(
    edges: TopEdges,
    path: str | Path | None = None,
    *,
    axes: Any = None,
    labels: Sequence[str] | None = None,
) -> Any:
    """Draws the edges that a node attends to most: the node in the middle, a ring for each hop.

    Each edge is an arrow from its source to its destination; larger weights have thicker and
    brighter arrows. A self-loop is a dashed circle at its node.

    Args:
        edges: the result of :func:`top_edges`.
        path: image file to write, in the format of its suffix; None writes none.
        axes: matplotlib axes to draw into; None creates a new figure.
        labels: the text of each node of the graph; None writes the numbers.

    Returns:
        The axes. The figure is ``axes.figure``.

    Raises:
        TypeError: edges is no TopEdges.
        ImportError: matplotlib is not installed.

    Example:
        >>> from gat_ext.explain import match_edges, top_edges
        >>> pair = torch.tensor([[0, 1, 2], [2, 2, 2]]), torch.tensor([[0.2], [0.3], [0.5]])
        >>> axes = draw_edges(top_edges(match_edges(pair, pair[0]), node=2))
        >>> len(axes.patches)  # two arrows and a self-loop
        3
    """
    if not isinstance(edges, TopEdges):
        raise TypeError(
            f"edges is a {type(edges).__name__}; expected the TopEdges that top_edges returns"
        )
    try:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "draw_edges needs matplotlib, which is not installed: pip install 'gat_ext[train]'"
        ) from error
    if axes is None:
        axes = Figure(figsize=(6, 5), layout="constrained").subplots()
    place = _places(edges)
    weights = edges.alpha.detach().double()
    largest = max(weights.abs().tolist(), default=0.0) or 1.0
    colour = ScalarMappable(Normalize(min([0, *weights.tolist()]), largest), colormaps[_COLOURS])
    for ends, weight in zip(edges.edge_index.t().tolist(), weights.tolist(), strict=True):
        width = 0.5 + 3 * abs(weight) / largest
        axes.add_patch(
            _patch(*(place[n] for n in ends), linewidth=width, color=colour.to_rgba(weight))
        )
    for node, (x, y) in place.items():
        axes.plot(x, y, "o", markersize=18, color=_CENTRE if node == edges.node else _NODE)
        text = str(node) if labels is None else labels[node]
        axes.annotate(text, (x, y), ha="center", va="center", fontsize=8)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.margins(0.12)
    axes.figure.colorbar(colour, ax=axes, label="attention, mean over heads", shrink=0.8)
    if path is not None:
        axes.figure.savefig(path, dpi=150)
    return axes


def _patch(source: tuple[float, float], destination: tuple[float, float], **style: Any) -> Any:
    """An arrow, or for a self-loop a circle above the node."""
    from matplotlib.patches import Circle, FancyArrowPatch

    if source == destination:
        x, y = source
        return Circle((x, y + _LOOP), _LOOP, fill=False, linestyle="--", **style)
    return FancyArrowPatch(
        source,
        destination,
        arrowstyle="-|>",
        mutation_scale=12,
        connectionstyle="arc3,rad=0.08",  # separates the two directions of a pair
        shrinkA=_MARGIN,
        shrinkB=_MARGIN,
        **style,
    )


def _places(edges: TopEdges) -> dict[int, tuple[float, float]]:
    """Position of each node: the centre, or the ring of its first hop, near its destination."""
    angle, ring = {edges.node: 0.0}, {edges.node: 0}
    for hop in sorted(set(edges.hop.tolist())):
        at = edges.hop == hop
        new: dict[int, int] = {}
        for source, destination in edges.edge_index[:, at].t().tolist():
            if source not in ring:
                new.setdefault(source, destination)
        around = sorted(new, key=lambda source: angle[new[source]])
        for place, source in enumerate(around):
            angle[source], ring[source] = 2 * math.pi * (place + 0.5) / len(around), hop
    return {n: (ring[n] * math.cos(a), ring[n] * math.sin(a)) for n, a in angle.items()}
