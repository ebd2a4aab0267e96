"""Forms of edges besides an edge_index and a Graph: one file and one row in ``FORMS`` for each.

Layers, models and ``Reordered`` take any of them. None of the libraries is required or imported.

=================================  =================================================================
PyG's ``EdgeIndex``                as an edge_index: sorted once, until the tensor is modified
``SparseTensor``, torch sparse     a row for each destination, as PyG's ``adj_t``; sorted once;
(COO, CSR, CSC)                    values of more than one dimension (of a SparseTensor: any) are
                                   the edge_attr of layers with edge_dim
SciPy sparse matrix                [N_dst, N_src]; read at every call
NetworkX graph                     u -> v, nodes in the order of ``graph.nodes``; read at every call
DGL graph or block                 by edge id; for a block x may be the features of its sources;
                                   read at every call
=================================  =================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from gat_ext.graph.formats import (
    dgl_graph,
    networkx_graph,
    scipy_sparse,
    sparse_tensor,
    torch_sparse,
)
from gat_ext.graph.formats.form import Edges, Form

__all__ = ["FORMS", "Edges", "Form", "constructors", "form_of"]

FORMS = (
    sparse_tensor.FORM,
    torch_sparse.FORM,
    dgl_graph.FORM,
    scipy_sparse.FORM,
    networkx_graph.FORM,
)


def form_of(adjacency: Any) -> Form:
    """The form of an object that holds edges.

    Raises:
        TypeError: no form matches.
    """
    for form in FORMS:
        if form.matches(adjacency):
            return form
    names = ", ".join(form.name for form in FORMS[:-1])
    raise TypeError(
        f"edge_index is a {type(adjacency).__name__}; expected an int32 or int64 tensor [2, E], a "
        f"gat_ext.Graph, an EdgeIndex of PyG, {names} or {FORMS[-1].name}{_hint(adjacency)}"
    )


def _hint(adjacency: Any) -> str:
    """What to do with objects that hold edges, but are no form of them."""
    if isinstance(getattr(adjacency, "edge_index", None), Tensor):  # a Data of PyG
        return ": pass its edge_index, or Graph.from_pyg of it"
    if isinstance(adjacency, np.ndarray):
        return ": convert it with torch.from_numpy"
    if isinstance(adjacency, (list, tuple)) and any(hasattr(part, "num_dst") for part in adjacency):
        return ": pass one block to each layer; models of gat_ext.models take a list of blocks"
    return ""


def constructors() -> str:
    """The methods of Graph for these forms, as a list for errors."""
    names = [form.constructor for form in FORMS if form.constructor]
    return ", ".join(f"Graph.{name}" for name in dict.fromkeys(names))
