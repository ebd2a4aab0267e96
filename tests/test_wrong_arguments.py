"""Arguments of another type, dtype or size than expected: the error names the argument."""

from __future__ import annotations

import pytest
import torch
from layers import over, plain_cases

from gat_ext import Graph, SparseFeatures, explain, functional, models, nn
from gat_ext.models import GAM, AttentionWalk, GAMMemory

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
X = torch.randn(3, 5)
PAIR = EDGES, torch.full((3, 1), 1.0)


def matched():
    return explain.match_edges(PAIR, EDGES)


def refuses(error, message):
    return pytest.raises(error, match=message)


# ---- walking agents

TWELVE = Graph(torch.tensor([[0, 1, 5, 6], [1, 0, 6, 5]]), num_nodes=12)
TYPES = torch.tensor([0, 1, 2] * 4)
PTR = torch.tensor([0, 5, 12])
CHANGES = {
    "a type too large": ({"node_type": TYPES + 1}, IndexError, "the value 3; .* 0 to 2"),
    "a type below 0": ({"node_type": TYPES - 1}, IndexError, "node_type has the value -1"),
    "types as floats": ({"node_type": TYPES.float()}, TypeError, "node_type has dtype"),
    "types as a list": ({"node_type": TYPES.tolist()}, TypeError, "node_type is a list"),
    "too few types": ({"node_type": TYPES[1:]}, ValueError, r"node_type has shape \[11\]"),
    "pointers beyond": ({"node_ptr": [0, 5, 13]}, ValueError, "from 0 to 13; .* 0 to 12"),
    "pointers that end early": ({"node_ptr": [0, 5, 11]}, ValueError, "node_ptr goes from 0 to 11"),
    "pointers that start late": ({"node_ptr": [1, 5, 12]}, ValueError, "goes from 1 to 12"),
    "no pointers": ({"node_ptr": []}, ValueError, r"node_ptr has shape \[0\]; expected \[G \+ 1\]"),
    "one pointer": ({"node_ptr": [0]}, ValueError, r"node_ptr has shape \[1\]"),
    "falling pointers": ({"node_ptr": [0, 7, 5, 12]}, ValueError, "graph 1 has -2 nodes"),
    "an empty graph": ({"node_ptr": [0, 5, 5, 12]}, ValueError, "graph 1 has 0 nodes by node_ptr"),
    "pointers as a list": ({"node_ptr": (0, 5, 12)}, TypeError, "node_ptr is a tuple"),
    "graphs beyond": ({"graphs": [3]}, IndexError, "graphs has the value 3; expected 0 to 1"),
    "graphs below": ({"graphs": [-1]}, IndexError, "graphs has the value -1; expected 0 to 1"),
    "graphs as a matrix": ({"graphs": [[0]]}, ValueError, r"graphs has shape \[1, 1\]"),
    "an edge_index": ({"graph": EDGES}, TypeError, "graph is a Tensor; expected a gat_ext.Graph"),
    "starts of other graphs": ({"start": [[0]]}, ValueError, r"shape \[1, 1\]; expected \[2, M\]"),
    "starts beyond": ({"start": [[0], [12]]}, IndexError, "the value 12; expected 0 to 11"),
    "starts as a list": ({"start": 3}, TypeError, "start is a int"),
    "agents": ({"num_agents": 2.0}, TypeError, "num_agents is 2.0 of type float"),
    "a seed": ({"seed": 3}, TypeError, "seed is a int; expected an int64 tensor"),
    "attributes": ({"attributes": torch.ones(12, 2)}, ValueError, "attributes were given, but"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [GAM, GAMMemory])
@pytest.mark.parametrize("name", CHANGES)
def test_walk_models(kind, name):
    change, error, message = CHANGES[name]
    inputs = {"graph": TWELVE, "node_type": TYPES, "node_ptr": PTR}
    model = kind(3, 2, num_steps=2, num_agents=2, hidden_channels=4, step_channels=(3, 3))
    assert model(**inputs).logits.shape[0] == 2
    given = {k: torch.tensor(v).long() if isinstance(v, list) and k != "node_type" else v
             for k, v in change.items()}  # fmt: skip
    for walk in ("attention", "uniform"):
        model.walk = walk
        with refuses(error, message):
            model(**inputs | given)


def test_losses_of_walk_models():
    model = GAM(3, 2, num_steps=2, num_agents=2)
    out = model(TWELVE, TYPES, PTR)
    for y in (torch.tensor([0]), torch.tensor([0.0, 1.0]), [0, 1]):
        with refuses(TypeError, r"expected int64 \[2\], a class for each graph"):
            model.loss(out, y)
    with refuses(TypeError, "output is a Tensor"):
        model.loss(out.logits, torch.tensor([0, 1]))


def test_walk_agent():
    agent = nn.WalkAgent(3, 4, (3, 3))
    start = torch.tensor([0, 1])
    for change, error, message in (
        ({"graph": EDGES}, TypeError, "graph is a Tensor"),
        ({"node_type": None}, TypeError, "node_type is a NoneType"),
        ({"start": [0, 1]}, TypeError, "start is a list"),
        ({"start": start.int()}, TypeError, "start has dtype torch.int32"),
        ({"start": start.view(1, 2)}, ValueError, r"start has shape \[1, 2\]"),
        ({"num_steps": "3"}, TypeError, "num_steps is '3' of type str"),
        ({"num_steps": 2**31}, ValueError, "num_steps is 2147483648; expected at most"),
        ({"mode": 3}, ValueError, "mode is 3; expected one of"),
        ({"attributes": [1]}, ValueError, "attributes were given"),
    ):
        inputs = {"graph": TWELVE, "node_type": TYPES, "start": start, "num_steps": 2} | change
        with refuses(error, message):
            agent(**inputs)
    with_attributes = nn.WalkAgent(3, 4, (3, 3), attribute_channels=2)
    with refuses(TypeError, "attributes is a list"):
        with_attributes(TWELVE, TYPES, start, 2, attributes=[1])
    with refuses(TypeError, "attributes has dtype torch.float64"):
        with_attributes(TWELVE, TYPES, start, 2, attributes=torch.ones(12, 2).double())
    for channels in (3, (3,), None):
        with refuses(TypeError, "step_channels is .* expected a pair"):
            nn.WalkAgent(3, 4, channels)


# ---- sizes

SIZES = {
    "GAT": lambda **k: models.GAT(5, 4, 3, **k),
    "GATv2": lambda **k: models.GATv2(5, 4, 3, **k),
    "GraphTransformer": lambda **k: models.GraphTransformer(5, 4, 3, **k),
    "AGNN": lambda **k: models.AGNN(5, 4, 3, **k),
}


@pytest.mark.parametrize("size", [2**31, 10**20, 0, -1, 2.0, True, "2", None])
def test_numbers_of_layers_steps_and_walks(size):
    error = ValueError if type(size) is int else TypeError
    for make in SIZES.values():
        with refuses(error, f"num_layers is {size!r}"):
            make(num_layers=size)
    for kind in (GAM, GAMMemory):
        with refuses(error, f"num_steps is {size!r}"):
            kind(3, 2, num_steps=size)
    with refuses(error, f"window is {size!r}"):
        AttentionWalk(3, window=size)


@pytest.mark.parametrize("name", SIZES)
def test_dropout_of_models(name):
    for p in (torch.tensor([0.1, 0.2]), torch.tensor(0.5), "0.5", None):
        with refuses(TypeError, "dropout is a .*; expected a number"):
            SIZES[name](dropout=p)
    with refuses(ValueError, r"dropout is 1\.5; expected a probability"):
        SIZES[name](dropout=1.5)


@pytest.mark.parametrize("name", SIZES)
def test_flags_of_models(name):
    flag = "learn_first_beta" if name == "AGNN" else "residual"
    for given in (torch.ones(2), torch.zeros(2, 0), 5, None, "yes"):
        with refuses(TypeError, f"{flag} is a .*; expected True or False"):
            SIZES[name](**{flag: given})


def test_attention_walk():
    for options in ({"num_walks": "3"}, {"beta": torch.ones(2)}):
        with refuses(TypeError, f"{next(iter(options))} is a"):
            AttentionWalk(3, **options)
    with refuses(TypeError, "graph is a Tensor"):
        AttentionWalk(3).loss(EDGES)


# ---- features


@pytest.mark.parametrize("name", SIZES)
def test_features_of_models(name):
    model = SIZES[name]().eval()
    for x in (None, X.tolist(), X.numpy()):
        with refuses(TypeError, f"x is a {type(x).__name__}; a model expects a torch.Tensor"):
            model(x, EDGES)
    for x in (X.double(), X.long()):
        with refuses(TypeError, f"x has dtype {x.dtype}, .* has torch.float32; .* cast one"):
            model(x, EDGES)


def test_sparse_features():
    features = SparseFeatures(X)
    weight = torch.randn(4, 5)
    for given in (None, weight.tolist(), 3):
        with refuses(TypeError, f"weight is a {type(given).__name__}; expected a torch.Tensor"):
            features.linear(given)
    with refuses(TypeError, "bias is a list"):
        features.linear(weight, [1.0])
    with refuses(TypeError, "bias has dtype torch.float64"):
        features.linear(weight, torch.ones(4).double())
    with refuses(ValueError, r"bias has shape \[5\]; expected \[4\]"):
        features.linear(weight, torch.ones(5))
    for p in (torch.tensor(0.5), torch.tensor([0.1, 0.2]), None, "0.5"):
        with refuses(TypeError, "p is a .*; expected a number"):
            features.dropout(p)
    with refuses(ValueError, "p is 2; expected a probability"):
        features.dropout(2)
    for training in (torch.ones(2), torch.zeros(0), None, 1):
        with refuses(TypeError, "training is a .*; expected True or False"):
            features.dropout(0.5, training)


@over(plain_cases("edge_mask"))
def test_sparse_masks(case):
    layer = case.make()
    mask = torch.ones(3, case.heads)
    for sparse in (mask.to_sparse_csr(), mask.to_sparse()):
        with refuses(TypeError, f"edge_mask has layout {sparse.layout}; expected a dense tensor"):
            layer(X, EDGES, edge_mask=sparse)
        with refuses(TypeError, f"edge_mask has layout {sparse.layout}; expected a dense tensor"):
            functional.cosine_attention(Graph(EDGES), X[:, None], edge_mask=sparse)


# ---- graphs and explanations


@pytest.mark.parametrize(
    ("device", "error"),
    [
        *((name, ValueError) for name in ("abc", "", "cpu:x", -3)),
        *((kind, TypeError) for kind in (None, 1.5)),
    ],
)
def test_devices(device, error):
    for move in (Graph(EDGES).to, lambda to: Graph(EDGES).to(device=to)):
        with refuses(error, "device is .*; expected a torch.device, or its name such as 'cpu'"):
            move(device)


def test_explanations():
    record = matched()
    for given in (None, PAIR, [record], EDGES):
        with refuses(
            TypeError, f"attention is a {type(given).__name__}; expected a LayerAttention"
        ):
            explain.attention_entropy(given)
    for given in (None, EDGES, record):
        with refuses(TypeError, f"attention is a {type(given).__name__}; expected a list"):
            explain.attention_rollout(given, 0)
    for nodes in (None, "a", NotImplemented, [X], [None], {1}, lambda: 0):
        with refuses(TypeError, "nodes is (?s:.*); expected a node, or a list or a tensor"):
            explain.attention_rollout([record], nodes)
    for given in (None, EDGES):
        with refuses(TypeError, f"attention is a {type(given).__name__}; expected a list"):
            explain.top_edges(given, 0)
    with refuses(TypeError, "attention is a Tensor; expected a LayerAttention"):
        explain.top_edges([EDGES], 0)
    for node in (True, torch.tensor(True), 1.0, "1", None, torch.tensor([0, 1])):
        with refuses(TypeError, "node is .*; expected an integer"):
            explain.top_edges(record, node)
    assert explain.top_edges(record, torch.tensor(1)).node == 1
    for edges in (None, EDGES, record):
        with refuses(TypeError, f"edges is a {type(edges).__name__}; expected the TopEdges"):
            explain.draw_edges(edges)
    for attention in (None, EDGES, (EDGES,), (EDGES, None)):
        with refuses(TypeError, r"expected the pair \(edge_index, alpha\)"):
            explain.match_edges(attention, EDGES)
    with refuses(TypeError, "normalize is a int"):
        explain.attention_entropy(record, normalize=1)
