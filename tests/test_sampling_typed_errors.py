"""Sampling of several types: arguments that raise errors."""

from __future__ import annotations

import pytest
import torch
from typed_graphs import BY, CITES, DATA, EDGES, TWO, WRITES, X, Y, hetero_data, loader, sampler

from gat_ext import Graph
from gat_ext.sampling import LinkNeighborLoader

WRONG = [
    ({"input_nodes": "papers"}, ValueError, "did you mean 'paper'"),
    ({"input_nodes": None}, ValueError, "expected a type, such as 'paper', or"),
    ({"input_nodes": torch.arange(3)}, ValueError, "input_nodes is a Tensor"),
    ({"input_nodes": ("paper", torch.tensor([60]))}, IndexError, "from 0 to 59"),
    ({"input_nodes": ("paper", torch.ones(4).bool())}, ValueError, r"expected \[60\]"),
    ({"num_neighbors": {WRITES: [2]}}, ValueError, "lacks the relation .*written_by"),
    ({"num_neighbors": {**TWO, ("a", "b", "c"): [2]}}, ValueError, "key"),
    ({"num_neighbors": {**TWO, BY: [2, 2]}}, ValueError, "equal length"),
    ({"num_neighbors": {**TWO, BY: [-2]}}, ValueError, "written_by.*-2"),
    ({"num_neighbors": []}, ValueError, "num_neighbors is empty"),
    ({"data": (EDGES, X["paper"])}, TypeError, "expected a dictionary of features"),
    ({"data": (EDGES, {**X, "paper": X["paper"][:50]})}, IndexError, "graphs.*written_by"),
    ({"data": (EDGES, {**X, "paper": [1]})}, TypeError, r"x\['paper'\] is list"),
    ({"data": (EDGES, {"paper": X["paper"]})}, ValueError, "number of nodes of 'author'"),
    ({"data": (EDGES, X, Y[:9])}, ValueError, r"y\['paper'\] has shape \[9\]"),
    ({"data": (EDGES, X, {"papers": Y})}, ValueError, "y has the key 'papers'"),
    ({"data": (EDGES, X, Y, Y)}, TypeError, "tuple of 4"),
    ({"data": {}}, ValueError, "graphs is empty"),
    ({"data": ({"cites": EDGES[CITES]}, X)}, TypeError, "key 'cites'"),
    ({"data": ({CITES: EDGES[CITES].tolist()}, X)}, TypeError, "expected a gat_ext.Graph"),
    ({"data": ({CITES: Graph(EDGES[CITES], 61)}, X)}, ValueError, "num_dst = 60"),
    ({"data": ({CITES: EDGES[CITES].float()}, X)}, TypeError, "graphs.*cites"),
    ({"edge_attr": torch.ones(3, 1)}, TypeError, "edge_attr is a Tensor"),
    ({"edge_attr": {CITES: torch.ones(3, 1)}}, ValueError, r"expected \[400, "),
    ({"edge_weight": {("a", "b", "c"): torch.ones(3)}}, ValueError, "edge_weight has the key"),
    ({"edge_weight": {CITES: torch.ones(3)}}, ValueError, "edge_weight.*cites.*400"),
    ({"weight_attr": "w"}, ValueError, "attribute of a HeteroData"),
    ({"disjoint": True}, ValueError, "disjoint was given"),
    ({"node_time": torch.arange(60)}, ValueError, "node_time was given"),
    ({"input_time": torch.arange(60)}, ValueError, "input_time was given"),
    ({"temporal_strategy": "last"}, ValueError, "temporal_strategy was given"),
    ({"subgraph_type": "induced"}, ValueError, "subgraph_type"),
    ({"form": "block"}, ValueError, "did you mean 'blocks'"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=[row[2] for row in WRONG])
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        loader(**options)


def test_wrong_seeds_and_data():
    ours = sampler([2])
    with pytest.raises(ValueError, match="did you mean 'venue'"):
        ours.sample("venues", torch.arange(2))
    with pytest.raises(IndexError, match=r"seeds\[1\] is 7; expected node numbers from 0 to 6"):
        ours.sample("venue", torch.tensor([0, 7]))
    with pytest.raises(TypeError, match="seeds has dtype"):
        ours.sample("venue", torch.rand(2))
    data = hetero_data()
    with pytest.raises(ValueError, match="edge_attr was given"):
        loader(data=data, edge_attr={})
    with pytest.raises(ValueError, match="weight_attr is 'w'"):
        loader(data=data, weight_attr="w")
    with pytest.raises(TypeError, match="dict"):
        LinkNeighborLoader(DATA, [2])
