"""Losses and scores of classification and regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gat_ext.datasets import GraphDataset, NodeDataset, TypedDataset

_UNIFORM = 0.02  # of its entropy, uniform attention may lack


@dataclass(frozen=True)
class Metric:
    """What a score is.

    Attributes:
        name: its name.
        is_error: True for a number, the lower the better; False for a share, the higher the better.
        loss: what the loss is.

    Example:
        >>> ACCURACY.text(0.975, 0.0125), ABSOLUTE_ERROR.text(12.3456)
        ('97.5 ± 1.2 %', '12.35')
    """

    name: str
    is_error: bool = False
    loss: str = "cross-entropy [nats]"

    @property
    def label(self) -> str:
        """Of an axis with :meth:`shown` scores."""
        return self.name if self.is_error else f"{self.name} [%]"

    def gain(self, score: float) -> float:
        """The score, turned so that a higher one is better."""
        return -score if self.is_error else score

    def shown(self, score: float) -> float:
        """As a person reads it: a share in percent."""
        return score if self.is_error else 100 * score

    def text(self, mean: float, deviation: float | None = None) -> str:
        """The score with its unit, and its deviation if there is one."""
        form = ".4g" if self.is_error else ".1f"
        texts = [f"{self.shown(value):{form}}" for value in (mean, deviation) if value is not None]
        return " ± ".join(texts) + ("" if self.is_error else " %")


ACCURACY, MICRO_F1 = Metric("accuracy"), Metric("micro-F1")
ABSOLUTE_ERROR = Metric("mean absolute error", True, "squared error of standardised targets")


def loss(logits: Tensor, labels: Tensor, multilabel: bool) -> Tensor:
    """Cross-entropy of logits [N, K] and classes [N], or with ``multilabel`` of labels [N, K]."""
    if multilabel:
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def score(logits: Tensor, labels: Tensor, multilabel: bool) -> float:
    """Accuracy, or micro-averaged F1 with ``multilabel``, from 0 to 1.

    Example:
        >>> score(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]), False)
        0.5
    """
    if not multilabel:
        return (logits.argmax(-1) == labels).double().mean().item()
    predicted, true = logits > 0, labels > 0.5
    hits = (predicted & true).sum().item()
    total = predicted.sum().item() + true.sum().item()
    return 2 * hits / total if total else 1.0


class Objective(NamedTuple):
    """What a model of graphs learns.

    Attributes:
        outputs: of the model for each graph.
        metric: what the score is.
        loss: of the model's results [G, outputs] and the data set's y, a scalar.
        score: likewise, a float.
    """

    outputs: int
    metric: Metric
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]


def objective(data: GraphDataset, scale: Tensor | None = None) -> Objective:
    """Loss and score for the kind of labels that graphs have, in one place.

    Args:
        data: the data set.
        scale: [T], what errors of real targets are divided by in the loss; None: nothing.

    Example:
        >>> from gat_ext.datasets import load_graphs
        >>> objective(load_graphs("shapes", num_graphs=20)).metric.name
        'accuracy'
    """
    if data.task == "regression":

        def squared_error(out: Tensor, y: Tensor) -> Tensor:
            error = out - y if scale is None else (out - y) / scale
            return error.square().mean()

        return Objective(data.y.shape[1], ABSOLUTE_ERROR, squared_error, absolute_error)
    multilabel = data.task == "multilabel"
    criteria = partial(loss, multilabel=multilabel), partial(score, multilabel=multilabel)
    return Objective(data.num_classes, MICRO_F1 if multilabel else ACCURACY, *criteria)


def absolute_error(out: Tensor, y: Tensor) -> float:
    """Mean absolute error, over graphs and targets [G, T]."""
    return (out - y).abs().double().mean().item()


def entropies(edge_index: Tensor, alpha: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Entropy of each destination's attention, and of the uniform distribution over its in-edges.

    Args:
        edge_index: [2, E].
        alpha: [E, H], of sum 1 over the in-edges of each destination.
        num_nodes: number of destinations.

    Returns:
        (entropy [M, H], log of the in-degree [M]), in nats, for the M destinations with in-edges.

    Example:
        >>> entropies(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[0.5], [0.5]]), 1)
        (tensor([[0.6931]]), tensor([0.6931]))
    """
    dst = edge_index[1]
    terms = torch.special.entr(alpha.float())
    total = torch.zeros(num_nodes, alpha.shape[1], device=alpha.device).index_add(0, dst, terms)
    degree = torch.bincount(dst, minlength=num_nodes)
    reached = degree > 0
    return total[reached], degree[reached].float().log()


def is_uniform(layers: Sequence[tuple[Tensor, Tensor]], num_nodes: int) -> bool:
    """True if the entropy of every head of every layer is within 2 % of that of uniform attention.

    Both are means over the nodes, in nats; uniform attention has the log of the in-degree.

    Args:
        layers: (edge_index [2, E], alpha [E, H]) of every attention layer.
        num_nodes: number of destinations.

    Example:
        >>> edges = torch.tensor([[0, 1], [0, 0]])
        >>> [is_uniform([(edges, torch.tensor([[a], [1 - a]]))], 1) for a in (0.5, 0.6, 0.7)]
        [True, False, False]
    """
    return all(
        bool((entropy.mean(dim=0) >= (1 - _UNIFORM) * uniform.mean()).all())
        for entropy, uniform in (entropies(*layer, num_nodes) for layer in layers)
    )


def remarks(layers: Sequence[tuple[Tensor, Tensor]], num_nodes: int) -> list[str]:
    """Lines of a report about the attention of all layers; none unless attention is uniform.

    Args:
        layers: as of :func:`is_uniform`.
        num_nodes: number of destinations.

    Example:
        >>> remarks([(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[0.5], [0.5]]))], 1)
        ['Attention is uniform: the entropy of every head is within 2 % of the log of the degree']
    """
    if not layers or not is_uniform(layers, num_nodes):
        return []
    share = f"{100 * _UNIFORM:.0f} %"
    return [
        f"Attention is uniform: the entropy of every head is within {share} of the log of the "
        "degree"
    ]


@dataclass(frozen=True)
class LogisticRegression:
    """A fitted classifier of nodes.

    Attributes:
        estimator: scikit-learn's.
        val_score: its accuracy on the validation nodes.
    """

    estimator: Any
    val_score: float

    def score(self, features: Tensor, y: Tensor, mask: Tensor) -> float:
        """Accuracy on the nodes of a mask."""
        chosen = features[mask].cpu().numpy(), y[mask].cpu().numpy()
        return float(self.estimator.score(*chosen))


def logistic_regression(
    features: Tensor,
    data: NodeDataset | TypedDataset,
    strengths: Sequence[float] = (1.0,),
) -> LogisticRegression:
    """scikit-learn's logistic regression on the training nodes' features, without the graph.

    Args:
        features: [N, F].
        data: has labels and splits.
        strengths: inverse strengths C of the L2 penalty, of which validation accuracy chooses; the
            first among equals.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn import linear_model
    except ImportError as error:
        raise ImportError(
            "logistic regression needs scikit-learn: pip install 'gat_ext[train]'"
        ) from error
    x, y = features[data.train_mask].cpu().numpy(), data.y[data.train_mask].cpu().numpy()
    fits = []
    for strength in strengths:
        estimator = linear_model.LogisticRegression(C=strength, max_iter=10_000).fit(x, y)
        fit = LogisticRegression(estimator, 0.0)
        fits.append(replace(fit, val_score=fit.score(features, data.y, data.val_mask)))
    return max(fits, key=lambda fit: fit.val_score)
