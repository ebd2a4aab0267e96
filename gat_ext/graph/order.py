"""Orders of a graph's nodes in which neighbours are close in memory.

Each function takes edges and the number of nodes and returns int64 ``[num_nodes]``: the old number
of each new node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def node_order(method: str, edge_index: Tensor, num_nodes: int) -> Tensor:
    """The order with the given name of ``Graph.reorder``; the identity without edges.

    Raises:
        ValueError: unknown name.
        ImportError: a library is missing.
    """
    if method not in _ORDERS:
        names = ", ".join(map(repr, _ORDERS))
        raise ValueError(f"method is {method!r}; expected one of {names}")
    if edge_index.shape[1] == 0:
        return torch.arange(num_nodes, device=edge_index.device)
    return _ORDERS[method](edge_index, num_nodes)


def inverse(permutation: Tensor) -> Tensor:
    """int64 ``[N]``: the inverse permutation."""
    new_number = torch.empty_like(permutation)
    new_number[permutation] = torch.arange(permutation.shape[0], device=permutation.device)
    return new_number


def _degree(edge_index: Tensor, num_nodes: int) -> Tensor:
    in_degrees = torch.bincount(edge_index[1], minlength=num_nodes)
    return torch.argsort(in_degrees, descending=True, stable=True)


def _cuthill_mckee(edge_index: Tensor, num_nodes: int) -> Tensor:
    order = _reverse_cuthill_mckee(_undirected(edge_index, num_nodes, "rcm"))
    return torch.as_tensor(order, dtype=torch.int64, device=edge_index.device)


def _community(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Communities in reverse Cuthill-McKee order of their quotient graph; in each, nodes likewise.

    The order of nodes ignores edges between communities, because through these almost all nodes
    are two steps apart.
    """
    weights = _undirected(edge_index, num_nodes, "community")
    try:
        from sknetwork.clustering import Louvain
    except ImportError as error:
        raise _missing("community", "scikit-network") from error
    # Deterministic: by default shuffle_nodes is False.
    labels = Louvain(return_probs=False, return_aggregate=False).fit_predict(weights)
    between = _merged(weights, labels)
    place = np.argsort(_reverse_cuthill_mckee(between))  # rank of each community
    entries = weights.tocoo()
    inside = labels[entries.row] == labels[entries.col]
    entries.data[~inside] = 0
    own = entries.tocsr()
    own.eliminate_zeros()
    step = np.argsort(_reverse_cuthill_mckee(own))  # rank of each node
    order = np.lexsort((step, place[labels]))
    return torch.as_tensor(order, dtype=torch.int64, device=edge_index.device)


_ORDERS = {"degree": _degree, "rcm": _cuthill_mckee, "community": _community}
ORDERS = tuple(_ORDERS)


def _missing(method: str, library: str) -> ImportError:
    return ImportError(f"reorder({method!r}) needs {library}: pip install 'gat_ext[reorder]'")


def _undirected(edge_index: Tensor, num_nodes: int, method: str) -> Any:
    """Symmetric SciPy matrix of the number of edges between two nodes, in both directions."""
    try:
        from scipy.sparse import csr_matrix
    except ImportError as error:
        raise _missing(method, "SciPy") from error
    row, col = torch.cat([edge_index, edge_index.flip(0)], dim=1).cpu().numpy()
    ones = np.ones(row.shape[0], dtype=np.float32)
    return csr_matrix((ones, (row, col)), shape=(num_nodes, num_nodes))


def _merged(weights: Any, labels: Any) -> Any:
    """``weights`` with the nodes of each label merged into one."""
    from scipy.sparse import csr_matrix

    nodes = np.arange(labels.shape[0])
    members = csr_matrix((np.ones(nodes.shape[0], dtype=np.float32), (labels, nodes)))
    return (members @ weights @ members.T).tocsr()


def _reverse_cuthill_mckee(pattern: Any) -> Any:
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    return reverse_cuthill_mckee(pattern, symmetric_mode=True).copy()
