"""Attention weights of true and of random edges: their means, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from gat_ext.datasets import NodeDataset
from gat_ext.training import plots

Layers = Sequence[tuple[Tensor, Tensor]]
_LEAST, _MOST = 0.02, 12.0  # relative weights that a picture tells apart


@dataclass(frozen=True)
class EdgeWeights:
    """Mean attention weights over edges, layers and heads, each from 0 to 1.

    Attributes:
        true: of the edges that are not random.
        random: of the random edges, whatever they join.
        random_alike: of the random edges that join nodes of the same class.
    """

    true: float
    random: float
    random_alike: float

    @property
    def ratio(self) -> float:
        """How many times the mean weight of a random edge a true one has."""
        return self.true / self.random

    def __str__(self) -> str:
        """One line of a report."""
        return (
            f"Mean attention weight: {self.true:.3f} of a true edge, {self.random:.3f} of a random "
            f"one, {self.ratio:.1f} times less; {self.random_alike:.3f} of a random one between "
            "nodes of the same class"
        )


def relative_weights(layers: Layers, edge_index: Tensor, scaled: bool = True) -> Tensor:
    """The weight of each edge relative to uniform attention, the mean of all layers and heads.

    It is alpha times the number of edges that the layer attends over at the destination.

    Args:
        layers: (edges, alpha) of every attention layer, as ``attention_weights`` returns them.
        edge_index: [2, E], the given edges, without self-loops; added self-loops follow them.
        scaled: False gives the mean of alpha itself.

    Returns:
        [E]; 1 is uniform attention.

    Raises:
        ValueError: the layers attend over other edges.

    Example:
        >>> import torch
        >>> edges = torch.tensor([[0, 1], [2, 2]])
        >>> relative_weights([(edges, torch.tensor([[0.9, 0.7], [0.1, 0.3]]))], edges)
        tensor([1.6000, 0.4000])
    """
    count = edge_index.shape[1]
    total = edge_index.new_zeros(count).float()
    for edges, alpha in layers:
        if not edges[:, :count].equal(edge_index):
            raise ValueError("the layers attend over other edges; expected the attention of these")
        weight = alpha[:count].float().mean(dim=1)
        total += weight * edges[1].bincount()[edge_index[1]] if scaled else weight
    return total / len(layers)


def edge_weights(layers: Layers, data: NodeDataset) -> EdgeWeights:
    """Mean weights of a data set's true and random edges, both of which it has.

    Args:
        layers: (edges, alpha) of every attention layer.
        data: knows its random edges.

    Raises:
        ValueError: it does not, or the layers attend over other edges.
    """
    weight, random = relative_weights(layers, data.edge_index, scaled=False), _random(data)
    source, target = data.edge_index
    alike = random & (data.y[source] == data.y[target])
    return EdgeWeights(*(weight[chosen].mean().item() for chosen in (~random, random, alike)))


def _random(data: NodeDataset) -> Tensor:
    if data.random_edges is None:
        raise ValueError(f"{data.name} has no random_edges; expected a data set that knows them")
    return data.random_edges


def mean_of(found: Sequence[EdgeWeights]) -> EdgeWeights:
    """The mean of several trainings."""
    names = ("true", "random", "random_alike")
    return EdgeWeights(*(statistics.fmean(getattr(one, name) for one in found) for name in names))


def draw(layers: Layers, data: NodeDataset, title: str, path: Path) -> None:
    """Histograms of the weights of true and of random edges, relative to uniform attention.

    Args:
        layers: (edges, alpha) of every attention layer.
        data: knows its random edges.
        title: of the figure.
        path: PNG to write.
    """
    weight = relative_weights(layers, data.edge_index).clamp(_LEAST, _MOST).cpu().numpy()
    random = _random(data).cpu().numpy()
    figure, axes = plots.require().subplots(figsize=(7.2, 4.0), layout="constrained")
    bins = np.geomspace(_LEAST, _MOST, 61)
    kinds = ((random, "random edges", plots.ORANGE), (~random, "true edges", plots.BLUE))
    for chosen, name, colour in kinds:
        values = weight[chosen]
        share = np.full(len(values), 100 / max(len(values), 1))
        heights, _, _ = axes.hist(values, bins, weights=share, color=colour, alpha=0.6)
        top = int(heights.argmax())
        axes.annotate(
            name,
            (np.sqrt(bins[top] * bins[top + 1]), heights[top]),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color=colour,
            weight="bold",
        )
    axes.axvline(1, color="black", linewidth=1, linestyle=":")
    axes.annotate(
        "uniform attention",
        (1, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
    )
    axes.set_xscale("log")
    ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(y=0.12)
    axes.set(
        xlabel="attention weight of an edge, in units of uniform attention",
        ylabel="edges of the kind [%]",
    )
    found = edge_weights(layers, data)
    figure.suptitle(
        f"{title}: a true edge weighs {found.ratio:.1f} times as much as a random one", fontsize=11
    )
    plots.save(figure, path)
