"""Sparse matrices with pointers or indices out of bounds raise before anything reads them."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from gat_ext import Graph, SparseFeatures, nn

FOLDER = Path(__file__).parent
X, EDGES = torch.ones(2, 2), torch.tensor([[0, 1], [1, 0]])
MAKERS = {
    "crow_indices": torch.sparse_csr_tensor,
    "ccol_indices": torch.sparse_csc_tensor,
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_matrix,
}
USES = {
    "from_torch_sparse": Graph.from_torch_sparse,
    "from_scipy": Graph.from_scipy,
    "from_pyg": Graph.from_pyg,
    "features": SparseFeatures,
    "x of a layer": lambda matrix: nn.GATConv(2, 2)(matrix, EDGES),
    "edges of a layer": lambda matrix: nn.GATConv(2, 2)(X, matrix),
}
USES_OF_TORCH = ("from_torch_sparse", "from_pyg", "features", "x of a layer", "edges of a layer")
USES_OF_SCIPY = ("from_scipy", "features", "edges of a layer")
POINTERS = {
    (0, 1000000, 2): "decreases from 1000000 at position 1 to 2 at position 2",
    (0, -5, 2): "decreases from 0 at position 0 to -5 at position 1",
    (0, 1, 1): "goes from 0 to 1; expected 0 to 2, the number of stored entries",
    (0, 1, 3): "goes from 0 to 3; expected 0 to 2",
    (1, 1, 2): "goes from 1 to 2; expected 0 to 2",
}


def matrix(kind, pointers, indices=(0, 1), dtype=torch.int64):
    """[2, 2] with two entries."""
    if kind in ("csr", "csc"):
        made = MAKERS[kind](np.eye(2, dtype=np.float32))
        made.indptr[:], made.indices[:] = pointers, indices
        return made
    parts = torch.tensor(pointers, dtype=dtype), torch.tensor(indices, dtype=dtype), torch.ones(2)
    return MAKERS[kind](*parts, (2, 2), check_invariants=False)


def uses(kind):
    return USES_OF_SCIPY if kind in ("csr", "csc") else USES_OF_TORCH


def refusals(*calls):
    """The error of each expression of this module, in another process, which may crash."""
    lines = ["from test_faulty_matrices import *"]
    for call in calls:
        lines += [f"try: {call}; print('taken')"]
        lines += ["except Exception as error: print(type(error).__name__, error)"]
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=FOLDER, timeout=120, check=False
    )
    assert result.returncode == 0, f"exit status {result.returncode} after {result.stdout}"
    return result.stdout.splitlines()


USES_OF = [(kind, use) for kind in MAKERS for use in uses(kind)]


def test_pointers():
    cases = [(*case, pointers) for case in USES_OF for pointers in POINTERS]
    printed = refusals(*(f"USES[{use!r}](matrix({kind!r}, {ptr}))" for kind, use, ptr in cases))
    for (kind, use, pointers), line in zip(cases, printed, strict=True):
        name = "indptr" if kind in ("csr", "csc") else kind
        assert line.startswith(f"ValueError {name} of the matrix {POINTERS[pointers]}"), use


def test_indices_beyond_the_shape():
    cases = [(*case, index) for case in USES_OF for index in (7, 1000000)]
    printed = refusals(
        *(f"USES[{use!r}](matrix({kind!r}, (0, 1, 2), (0, {i})))" for kind, use, i in cases)
    )
    for (*_, index), line in zip(cases, printed, strict=True):
        assert line.startswith("IndexError edge_index") and f"is {index};" in line


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("pointers", [[0, 2], [0, 1, 1, 2]])
def test_as_many_pointers_as_lines(pointers, dtype):
    with pytest.raises(ValueError, match=rf"has shape \[{len(pointers)}\]; expected \[3\]"):
        Graph.from_torch_sparse(matrix("crow_indices", pointers, dtype=dtype))
    graph = Graph.from_torch_sparse(matrix("ccol_indices", [0, 0, 2], dtype=dtype))
    assert graph.edge_index.tolist() == [[1, 1], [0, 1]]


def coordinates(row):
    coo = scipy.sparse.coo_array(np.eye(2))
    coo.row[0] = row
    return coo


def too_many_values():
    csr = scipy.sparse.csr_array(np.eye(2))
    csr.data = np.ones(3)
    return csr


def test_scipy_features_of_other_faults():
    printed = refusals(
        "SparseFeatures(coordinates(7))",
        "SparseFeatures(coordinates(1000000))",
        "SparseFeatures(too_many_values())",
    )
    assert [line.split(";")[0] for line in printed] == [
        "IndexError edge_index[1, 1] is 7",
        "IndexError edge_index[1, 1] is 1000000",
        "ValueError the matrix has 3 values and 2 indices",
    ]


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_scipy_features(layout):
    dense = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, -3.0]])
    x = SparseFeatures(getattr(scipy.sparse, f"{layout}_array")(dense))
    assert x.linear(torch.eye(3, dtype=torch.float64)).tolist() == dense.tolist()
    assert x.graph.edge_id is None  # row by row


class SparseTensor:
    """The methods of torch_sparse's class in use while it has pointers and no rows yet."""

    def __init__(self, rowptr, col):
        self.storage = types.SimpleNamespace(
            has_row=lambda: False, rowptr=lambda: rowptr, col=lambda: col
        )

    def sparse_sizes(self):
        return 2, 2

    def coo(self):
        """Expands the pointers."""
        rowptr, col = self.storage.rowptr(), self.storage.col()
        assert rowptr.tolist() == [0, 1, 2]
        return torch.tensor([0, 1]), col, None


def test_sparse_tensor():
    layer, col = nn.GATConv(2, 2, edge_dim=1), torch.tensor([1, 0])
    edges = SparseTensor(torch.tensor([0, 1, 2]), col)
    assert Graph.from_pyg(edges).edge_index.tolist() == [[1, 0], [0, 1]]
    faulty = SparseTensor(torch.tensor([0, 1000, 2]), col)
    for call in (Graph.from_pyg, lambda edges: layer(X, edges)):
        with pytest.raises(ValueError, match="rowptr of the SparseTensor decreases from 1000"):
            call(faulty)
