"""One training epoch of the two-layer GAT on a large graph: seconds and peak memory."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from compare import differences, tolerance, verdict
from measure import peak_resident
from sweep_graphs import SEED, make_graph
from sweep_plan import Epoch
from sweep_worker import WrongResultError
from torch import Tensor

from gat_ext import Graph, reference
from gat_ext.models import GAT

_EPOCHS = 2
_SMALL_NODES, _SMALL_EDGES = 100, 1000


def _model(epoch: Epoch) -> GAT:
    """Both layers have all heads; dropout is the paper's."""
    width = epoch.heads * epoch.channels
    torch.manual_seed(SEED)
    return GAT(width, epoch.channels, epoch.channels, heads=epoch.heads, out_heads=epoch.heads)


def reference_logits(weights: dict[str, Tensor], x: Tensor, graph: Graph) -> Tensor:
    """The network by the reference's attention, without dropout.

    Args:
        weights: parameters of ``gat_ext.models.GAT`` by name.
        x: ``[N, C]``.
        graph: with one self-loop at every node.
    """
    for position in (0, 1):
        own = {name.removeprefix(f"layers.{position}."): weight for name, weight in weights.items()}
        value = (x @ own["lin.weight"].t()).unflatten(1, own["att_src"].shape[1:])
        dst_term, src_term = ((value * own[f"att_{end}"]).sum(-1) for end in ("dst", "src"))
        out = reference.gat_attention(graph, value, dst_term, src_term)
        assert isinstance(out, Tensor)
        if position == 0:
            x = F.elu(out.flatten(1) + own["bias"])
    return out.mean(1) + own["bias"]


def check(epoch: Epoch) -> float:
    """The largest error of logits and gradients on a small graph.

    Raises:
        WrongResultError: it is more than rounding explains.
    """
    nodes, edges = min(epoch.graph.nodes, _SMALL_NODES), min(epoch.graph.edges, _SMALL_EDGES)
    graph, _ = make_graph(replace(epoch.graph, nodes=nodes, edges=edges))
    graph = graph.remove_self_loops().add_self_loops()  # as the layers do
    model, x = _model(epoch).eval(), torch.randn(nodes, epoch.heads * epoch.channels)
    grad_out = torch.randn(nodes, epoch.channels)
    out = model(x, graph)
    out.backward(grad_out)
    wide = {
        name: weight.detach().double().requires_grad_() for name, weight in model.named_parameters()
    }
    want = reference_logits(wide, x.double(), graph)
    want.backward(grad_out.double())
    errors = differences(
        {"out": out.detach(), "grads": {name: p.grad for name, p in model.named_parameters()}},
        {"out": want.detach(), "grads": {name: weight.grad for name, weight in wide.items()}},
        [[name] for name in wide],
    )
    sentence = verdict(errors, tolerance("float32", "gat_ext"), "the reference in float64")
    if sentence is not None:
        raise WrongResultError(f"two-layer GAT, N = {nodes:,}: {sentence}")
    return max(errors.values())


def train(epoch: Epoch) -> dict[str, Any]:
    """Trains for two epochs; the second one's seconds, and the peak of the whole process.

    Raises:
        WrongResultError: the network differs from the reference, or the loss is not finite.
    """
    torch.set_num_threads(epoch.threads)
    error = check(epoch)
    start = time.perf_counter()
    graph, _ = make_graph(epoch.graph)
    built = time.perf_counter() - start
    model = _model(epoch).train()
    adam = torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=5e-4)
    x = torch.randn(graph.num_nodes, epoch.heads * epoch.channels)
    target = torch.randint(epoch.channels, (graph.num_nodes,))
    seconds, losses = [], []
    for _ in range(_EPOCHS):
        start = time.perf_counter()
        adam.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x, graph), target)
        loss.backward()
        adam.step()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    if not torch.tensor(losses).isfinite().all():
        raise WrongResultError(f"losses of the epochs are {losses}; expected finite numbers")
    return {
        "num_nodes": graph.num_nodes,
        "num_edges": graph.num_edges,
        "build_seconds": built,
        "first_epoch_seconds": seconds[0],
        "epoch_seconds": seconds[-1],
        "losses": losses,
        "peak": peak_resident(),
        "error": error,
    }
