"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gat_ext.datasets import NodeDataset
from gat_ext.graph import Graph
from gat_ext.models import AttentionModel
from gat_ext.training import metrics
from gat_ext.training.epochs import EpochTrainer
from gat_ext.training.recipes import Recipe


@dataclass(frozen=True)
class _Batch:
    """Some of the graphs of a data set, and which of their nodes count."""

    x: Tensor
    y: Tensor
    graph: Graph
    mask: Tensor
    edge_attr: Tensor | None = None


class Trainer(EpochTrainer[AttentionModel]):
    """Trains one model with one seed.

    Args:
        make_model: makes the model; called after the seed is set.
        data: the data set, on the device to train on.
        recipe: optimiser, length and stopping.
        seed: of torch's generators.

    Raises:
        ValueError: the data set has no training, validation or test nodes.

    Example:
        >>> from gat_ext.datasets import load
        >>> from gat_ext.models import GAT
        >>> data = load("karate")
        >>> trainer = Trainer(lambda: GAT(data.num_features, 8, 2), data, Recipe(epochs=3), seed=0)
        >>> while trainer.step(): pass
        >>> trainer.result().epochs
        3
    """

    extendable = True

    def __init__(
        self,
        make_model: Callable[[], AttentionModel],
        data: NodeDataset,
        recipe: Recipe,
        seed: int,
    ) -> None:
        data.require_splits()
        torch.manual_seed(seed)
        self.data, self.recipe = data, recipe
        model = make_model().to(data.x.device)
        optimizer = torch.optim.Adam(
            # Fused: for models as small as these the default's many operators cost more than their
            # work.
            parameter_groups(model, recipe.weight_decay),
            lr=recipe.lr,
            fused=True,
        )
        super().__init__(model, optimizer, recipe, seed)
        graph = data.graph
        self.batches = _split(data, graph, recipe.graphs_per_batch)
        self._validation = _of(data, graph, data.val_mask)
        self._tested = _of(data, graph, data.test_mask)

    def _train_epoch(self) -> float:
        self.model.train()
        total = 0.0
        for batch in self._shuffled():
            logits = self._logits(batch)
            loss = self._loss(logits, batch.y[batch.mask])
            self._step(loss)
            total += loss.item()
        return total / len(self.batches)

    def _logits(self, batch: _Batch) -> Tensor:
        """float32, of the nodes that count."""
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            edge_attr = self._edges(batch)
            options = {} if edge_attr is None else {"edge_attr": edge_attr}
            logits: Tensor = self.model(batch.x, batch.graph, **options)
        return logits[batch.mask].float()

    def _edges(self, batch: _Batch) -> Tensor | None:
        """What the attention sees of the edges."""
        return None if getattr(self.model, "edge_dim", None) is None else batch.edge_attr

    def _shuffled(self) -> Iterator[_Batch]:
        order = torch.randperm(len(self.batches)).tolist() if len(self.batches) > 1 else [0]
        return (self.batches[i] for i in order)

    @torch.no_grad()
    def _evaluate(self, nodes: _Batch) -> tuple[float, float]:
        self.model.eval()
        logits, labels = self._logits(nodes), nodes.y[nodes.mask]
        return self._loss(logits, labels).item(), self._score(logits, labels)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return metrics.loss(logits, labels, self.data.multilabel)

    def _score(self, logits: Tensor, labels: Tensor) -> float:
        return metrics.score(logits, labels, self.data.multilabel)

    def _validate(self) -> tuple[float, float]:
        return self._evaluate(self._validation)

    def _test(self) -> tuple[float, float]:
        return self._evaluate(self._tested)


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """L2 on everything but biases, as in GAT's code."""
    decayed = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]


def _split(data: NodeDataset, graph: Graph, graphs_per_batch: int) -> list[_Batch]:
    """The batches of an epoch: the whole data set, or groups of its graphs with training nodes."""
    if data.graph_ids is None or graphs_per_batch == 0:
        return [_Batch(data.x, data.y, graph, data.train_mask, data.edge_attr)]
    ids = data.graph_ids[data.train_mask].unique()
    return [_subset(data, chosen, data.train_mask) for chosen in ids.split(graphs_per_batch)]


def _of(data: NodeDataset, graph: Graph, mask: Tensor) -> _Batch:
    """The graphs that hold the nodes of a mask."""
    if data.graph_ids is None:
        return _Batch(data.x, data.y, graph, mask, data.edge_attr)
    return _subset(data, data.graph_ids[mask].unique(), mask)


def _subset(data: NodeDataset, ids: Tensor, mask: Tensor) -> _Batch:
    assert data.graph_ids is not None
    nodes = torch.isin(data.graph_ids, ids)
    graph, edges = data.graph.subgraph(nodes)
    edge_attr = None if data.edge_attr is None else data.edge_attr[edges]
    return _Batch(data.x[nodes], data.y[nodes], graph, mask[nodes], edge_attr)
