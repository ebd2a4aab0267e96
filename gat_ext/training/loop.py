"""The training loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gat_ext.datasets import NodeDataset
from gat_ext.graph import Graph
from gat_ext.models import AttentionModel
from gat_ext.training import checkpoint, metrics
from gat_ext.training.recipes import Recipe
from gat_ext.training.stopping import make_stopping

HISTORY = ("train_loss", "val_loss", "val_score")


@dataclass
class SeedResult:
    """What a finished run with one seed says.

    Attributes:
        seed: the seed.
        epochs: epochs run.
        best_epoch: the epoch whose weights were kept, from 1.
        val_score: validation accuracy (micro-F1 with several labels) of those weights.
        test_score: test accuracy of those weights, computed once, at the end.
        seconds: training time.
        history: train_loss, val_loss and val_score of every epoch.
    """

    seed: int
    epochs: int
    best_epoch: int
    val_score: float
    test_score: float
    seconds: float
    history: dict[str, list[float]]


@dataclass(frozen=True)
class _Batch:
    """Some of the graphs of a data set, and which of their nodes count."""

    x: Tensor
    y: Tensor
    graph: Graph
    mask: Tensor


class Trainer:
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

    def __init__(
        self,
        make_model: Callable[[], AttentionModel],
        data: NodeDataset,
        recipe: Recipe,
        seed: int,
    ) -> None:
        for split in ("train", "val", "test"):
            if not getattr(data, f"{split}_mask").any():
                raise ValueError(f"{data.name}: {split}_mask is empty; every split needs a node")
        torch.manual_seed(seed)
        self.data, self.recipe, self.seed = data, recipe, seed
        self.model = make_model().to(data.x.device)
        self.optimizer = torch.optim.Adam(
            # Fused: for models as small as these the default's many operators cost more than their work.
            _parameter_groups(self.model, recipe.weight_decay),
            lr=recipe.lr,
            fused=True,
        )
        self.stopping = make_stopping(recipe.stopping, recipe.patience)
        graph = Graph(data.edge_index, num_nodes=data.num_nodes)
        self.batches = _split(data, graph, recipe.graphs_per_batch)
        self._validation = _of(data, graph, data.val_mask)
        self._test = _of(data, graph, data.test_mask)
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.best_epoch, self.seconds = 0, 0.0
        self.best_state = copy.deepcopy(self.model.state_dict())

    @property
    def epoch(self) -> int:
        """Epochs run so far."""
        return len(self.history["val_loss"])

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.stopping.stop or self.epoch >= self.recipe.epochs

    def step(self) -> bool:
        """Runs one epoch; whether there is another to run.

        Raises:
            FloatingPointError: the training loss is not finite.
        """
        if self.finished:
            return False
        start = time.perf_counter()
        train_loss = self._train_epoch()
        val_loss, val_score = self._evaluate(self._validation)
        self.seconds += time.perf_counter() - start
        for name, value in zip(HISTORY, (train_loss, val_loss, val_score), strict=True):
            self.history[name].append(value)
        if self.stopping.keep(val_loss, val_score):
            self.best_epoch, self.best_state = self.epoch, copy.deepcopy(self.model.state_dict())
        return not self.finished

    def _train_epoch(self) -> float:
        self.model.train()
        total = 0.0
        for batch in self._shuffled():
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.model(batch.x, batch.graph)[batch.mask]
            loss = metrics.loss(logits, batch.y[batch.mask], self.data.multilabel)
            if not loss.isfinite():
                raise FloatingPointError(
                    f"the training loss is {loss.item()} in epoch {self.epoch + 1}; try a smaller learning rate"
                )
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total / len(self.batches)

    def _shuffled(self) -> Iterator[_Batch]:
        order = torch.randperm(len(self.batches)).tolist() if len(self.batches) > 1 else [0]
        return (self.batches[i] for i in order)

    @torch.no_grad()
    def _evaluate(self, nodes: _Batch) -> tuple[float, float]:
        self.model.eval()
        logits, labels = self.model(nodes.x, nodes.graph)[nodes.mask], nodes.y[nodes.mask]
        multilabel = self.data.multilabel
        return metrics.loss(logits, labels, multilabel).item(), metrics.score(
            logits, labels, multilabel
        )

    def result(self) -> SeedResult:
        """Puts the kept weights into the model and looks at the test nodes, for the first and only time."""
        self.model.load_state_dict(self.best_state)
        _, val_score = self._evaluate(self._validation)
        _, test_score = self._evaluate(self._test)
        return SeedResult(
            self.seed,
            self.epoch,
            self.best_epoch,
            val_score,
            test_score,
            self.seconds,
            self.history,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on as if training had never stopped; a copy."""
        state = {
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stopping": self.stopping.state_dict(),
            "best_state": self.best_state,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
            "random": checkpoint.random_state(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where a state was taken.

        Raises:
            ValueError: the state is of another seed or recipe.
        """
        for name, own in (("seed", self.seed), ("recipe", asdict(self.recipe))):
            if state[name] != own:
                raise ValueError(f"the checkpoint has {name} {state[name]}; this run has {own}")
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:  # what torch raises for other names or shapes
            raise ValueError(f"the checkpoint is of another model: {error}") from error
        # The optimizer would go on writing into the tensors that it is given.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.stopping.load_state_dict(state["stopping"])
        self.best_state, self.best_epoch = state["best_state"], state["best_epoch"]
        self.history = {name: list(values) for name, values in state["history"].items()}
        self.seconds = state["seconds"]
        checkpoint.restore_random_state(state["random"])


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """L2 on everything but biases, as in GAT's code."""
    decayed = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]


def _split(data: NodeDataset, graph: Graph, graphs_per_batch: int) -> list[_Batch]:
    """The batches of an epoch: the whole data set, or some of its graphs at a time, those with training nodes."""
    if data.graph_ids is None or graphs_per_batch == 0:
        return [_Batch(data.x, data.y, graph, data.train_mask)]
    ids = data.graph_ids[data.train_mask].unique()
    return [_subset(data, chosen, data.train_mask) for chosen in ids.split(graphs_per_batch)]


def _of(data: NodeDataset, graph: Graph, mask: Tensor) -> _Batch:
    """The graphs that hold the nodes of a mask."""
    if data.graph_ids is None:
        return _Batch(data.x, data.y, graph, mask)
    return _subset(data, data.graph_ids[mask].unique(), mask)


def _subset(data: NodeDataset, ids: Tensor, mask: Tensor) -> _Batch:
    assert data.graph_ids is not None
    nodes = torch.isin(data.graph_ids, ids)
    position = nodes.cumsum(0) - 1
    edges = data.edge_index[:, nodes[data.edge_index[0]]]
    graph = Graph(position[edges], num_nodes=int(nodes.sum()))
    return _Batch(data.x[nodes], data.y[nodes], graph, mask[nodes])
