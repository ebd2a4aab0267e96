"""Pictures of walking agents: learning curves, where they go, and what they come to prefer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gat_ext.datasets import GraphDataset
from gat_ext.training.epochs import SeedResult
from gat_ext.training.graph_loop import GraphTrainer
from gat_ext.training.plots import _TRAIN, _VALIDATION, _curve, require, save

_GRAPHS = 4  # drawn
_AGENTS = 3  # drawn on each
_NAMED = 8  # types drawn in a colour of their own, the ones that the agents prefer most
_LARGEST = 300  # nodes of a graph that is drawn
_PATHS = ("#000000", "#c000c0", "#006400")  # none of them a node's
_OTHER = "#cccccc"


def curves(results: list[SeedResult], title: str, path: Path) -> None:
    """Loss and validation accuracy by epoch: the mean and range over folds.

    Args:
        results: one for each fold.
        title: of the figure.
        path: PNG to write.
    """
    figure, (left, right) = require().subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    _curve(left, [r.history["train_loss"] for r in results], _TRAIN, "training, single predictions")
    _curve(left, [r.history["val_loss"] for r in results], _VALIDATION, "validation, averaged")
    scores = [[100 * score for score in r.history["val_score"]] for r in results]
    _curve(right, scores, _VALIDATION, "validation")
    left.set(xlabel="epoch", ylabel="cross-entropy [nats]", title="loss")
    right.set(xlabel="epoch", ylabel="accuracy [%]", title="accuracy")
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{title} ({len(results)} folds: mean, least and most)")
    save(figure, path)


@torch.no_grad()
def walks(trainer: GraphTrainer, title: str, path: Path) -> None:
    """Some agents' walks on some test graphs, and the mean rank of each type by step over all.

    A node's colour is its type; a path goes from the round mark to the cross, its numbers count the
    moves, and it is the wider, the more its agent preferred the node's type that it moved to. The
    types of the highest ranks have colours, and the data set's signal types have thick lines.

    Args:
        trainer: has the model, the data and the test graphs.
        title: of the figure.
        path: PNG to write.
    """
    data, test = trainer.data, trainer.fold.test
    trainer.model.eval()
    seed = torch.tensor([trainer.seed], device=test.device)
    out = trainer.run(test, seed)
    mean_rank = out.walks.rank.mean(dim=0).cpu()  # [T, R]
    colours = _colours(data, mean_rank)
    figure = require().figure(figsize=(13, 6.5), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 1.2))
    drawable = (data.graph_sizes[test] <= _LARGEST).nonzero().flatten()[:_GRAPHS].tolist()
    predicted = out.probabilities.argmax(dim=1)
    agents = out.walks.nodes.shape[0] // len(test)
    for place, index in enumerate(drawable):
        axes = figure.add_subplot(grid[place // 2, place % 2])
        number = int(test[index])
        first = int(data.node_ptr[number])
        mine = slice(index * agents, index * agents + min(agents, _AGENTS))
        nodes = out.walks.nodes[mine].cpu() - first
        ranks, types = (
            out.walks.rank[mine].cpu(),
            data.node_type[out.walks.nodes[mine][:, 1:]].cpu(),
        )
        attention = ranks.gather(2, types.unsqueeze(2)).squeeze(2) / ranks.amax(dim=2)
        _draw(axes, data.subset(test[index : index + 1]), nodes, attention, colours)
        axes.set_title(
            f"graph {number}: class {int(data.y[number])}, predicted {int(predicted[index])}",
            fontsize=9,
        )
    _ranks(figure.add_subplot(grid[:, 2]), mean_rank, data, colours)
    figure.suptitle(f"{title}: ○ start, × end, numbers count the moves, width is attention")
    save(figure, path)


def _colours(data: GraphDataset, mean_rank: Tensor) -> dict[int, Any]:
    """Colours of the signal types and of those preferred most at any step."""
    order = mean_rank.amax(dim=0).argsort(descending=True).tolist()
    chosen = [*data.signal_types, *(kind for kind in order if kind not in data.signal_types)]
    palette = require().get_cmap("tab10")
    return {kind: palette(place) for place, kind in enumerate(chosen[:_NAMED])}


def _draw(
    axes: Any, graph: GraphDataset, nodes: Tensor, attention: Tensor, colours: dict[int, Any]
) -> None:
    """One graph and the walks on it.

    Args:
        axes: where to.
        graph: of that graph alone.
        nodes: [B, T + 1], where each agent was.
        attention: [B, T], from 0 to 1, of each move.
        colours: of the types that have one.
    """
    position = _layout(graph)
    edges = graph.edge_index.cpu().numpy()
    lines = position[edges]  # [2, E, 2]
    axes.plot(*lines.transpose(2, 0, 1), color="#bbbbbb", linewidth=0.6, zorder=1)
    types = graph.node_type.tolist()
    axes.scatter(*position.T, s=26, c=[colours.get(kind, _OTHER) for kind in types], zorder=2)
    for agent, (walk, widths) in enumerate(zip(nodes.tolist(), attention.tolist(), strict=True)):
        colour = _PATHS[agent]
        # A little aside, so that agents on one edge are all seen.
        track = position[walk] + (agent - (len(nodes) - 1) / 2) * 0.012
        for step, width in enumerate(widths):
            axes.plot(
                *track[step : step + 2].T,
                color=colour,
                linewidth=0.5 + 3 * width,
                alpha=0.6,
                zorder=3,
            )
        axes.plot(*track[0], "o", color=colour, markersize=7, fillstyle="none", zorder=4)
        axes.plot(*track[-1], "x", color=colour, markersize=7, zorder=4)
        arrivals: dict[int, list[str]] = {}
        for step, node in enumerate(walk):
            arrivals.setdefault(node, []).append(str(step))
        for node, steps in arrivals.items():
            label = steps[0] if len(steps) == 1 else f"{steps[0]}…{steps[-1]}"
            axes.annotate(
                label,
                position[node],
                xytext=(3, 3 + 7 * agent),
                textcoords="offset points",
                fontsize=6,
                color=colour,
            )
    axes.set_aspect("equal")
    axes.set_axis_off()


def _layout(graph: GraphDataset) -> Any:
    """Positions [N, 2] in the unit square, close to graph distances (stress majorisation)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path
    from sklearn.manifold import smacof

    source, target = graph.edge_index.cpu().numpy()
    size = graph.num_nodes
    ones = np.ones(len(source))
    distance = shortest_path(
        csr_array((ones, (source, target)), (size, size)), directed=False, unweighted=True
    )
    reached = distance[np.isfinite(distance)].max(initial=1.0)
    distance[~np.isfinite(distance)] = reached + 1  # other components stand aside
    start = np.random.default_rng(0).standard_normal((size, 2)) * reached / 4
    position, _ = smacof(distance, n_components=2, init=start, n_init=1)
    position -= position.min(axis=0)
    return position / max(position.max(), 1e-9)


def _ranks(axes: Any, mean_rank: Tensor, data: GraphDataset, colours: dict[int, Any]) -> None:
    """Lines of the mean rank of each type over the steps."""
    steps = np.arange(1, mean_rank.shape[0] + 1)
    for kind, series in enumerate(mean_rank.t().numpy()):
        signal = kind in data.signal_types
        axes.plot(
            steps,
            series,
            color=colours.get(kind, _OTHER),
            linewidth=3 if signal else 1.2,
            zorder=2 if kind in colours else 1,
            label=f"type {kind}{' (signal)' if signal else ''}" if kind in colours else None,
        )
    axes.axhline(
        1 / mean_rank.shape[1], color="black", linewidth=0.8, linestyle=":", label="uniform"
    )
    axes.set(xlabel="move", ylabel="mean rank when the move was made", title="preferred types")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
