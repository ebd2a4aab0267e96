"""Losses and scores of node classification."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gat_ext.datasets import NodeDataset


def loss(logits: Tensor, labels: Tensor, multilabel: bool) -> Tensor:
    """Cross-entropy of logits [N, K] and classes [N], or of each of the K labels [N, K] with ``multilabel``."""
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


def entropies(edge_index: Tensor, alpha: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Entropy of the attention of every destination with in-edges, and of the uniform distribution over them.

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


def logistic_regression(data: NodeDataset, seed: int = 0) -> float:
    """Test accuracy of scikit-learn's logistic regression on the features and labels of the training nodes, without the graph.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "the baseline needs scikit-learn: pip install 'gat_ext[train]'"
        ) from error
    x, y = data.x.cpu().numpy(), data.y.cpu().numpy()
    train, test = data.train_mask.cpu().numpy(), data.test_mask.cpu().numpy()
    model: Any = LogisticRegression(max_iter=10_000, random_state=seed)
    return float(model.fit(x[train], y[train]).score(x[test], y[test]))
