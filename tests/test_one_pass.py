"""The backward in one pass, taken on symmetric graphs where x, y and v are one tensor, on the CPU.

The C++ tests check when it is taken; here its gradients are compared with those of the reference.
"""

from __future__ import annotations

import pytest
import torch

from gat_ext import Graph, functional, reference

NODES = 70


def edges(kind):
    """Edges in both directions, sorted, as data sets have them."""
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randint(NODES - 5, (2, 300), generator=generator)  # the last nodes have none
    drawn = torch.cat([drawn, torch.stack([torch.full((60,), 3), torch.arange(60)])], dim=1)
    if kind == "repeated":
        drawn = torch.cat([drawn, drawn], dim=1)
    both = torch.cat([drawn, drawn.flip(0)], dim=1)
    if kind == "unsorted":
        return both[:, torch.randperm(both.shape[1], generator=generator)]
    both = both[:, (both[0] * NODES + both[1]).sort(stable=True).indices]
    if kind == "loops":
        loops = torch.arange(NODES).expand(2, -1)
        both = torch.cat([both[:, both[0] != both[1]], loops], dim=1)
    if kind == "one edge turned":
        both[:, 40] = both[:, 40].flip(0)
    return both


KINDS = ["sorted", "repeated", "loops", "unsorted", "one edge turned"]


def cosine(module, graph, x, **options):
    return module.cosine_attention(graph, x, beta=torch.tensor(1.3, dtype=x.dtype), **options)


def dot(module, graph, x, **options):
    return module.edge_attention(graph, x, score="dot", query=x, key=x, scale=0.4, **options)


def supergat(module, graph, x, **options):
    return module.edge_attention(
        graph,
        x,
        score="supergat_mx",
        query=x,
        key=x,
        dst_term=x[..., 0] * 0.5,
        src_term=x.sum(-1) * 0.1,
        **options,
    )


def gradient(attention, module, graph, x):
    x = x.detach().requires_grad_()
    out = attention(module, graph, x)
    upstream = torch.linspace(-1, 2, out.numel()).view_as(out).to(x.dtype)
    return torch.autograd.grad(out, x, upstream)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 16), (4, 8), (3, 5), (6, 1)], ids=str)
@pytest.mark.parametrize("attention", [cosine, dot, supergat])
def test_gradients_are_those_of_the_reference(attention, shape, kind):
    graph = Graph(edges(kind), num_nodes=NODES)
    x = torch.randn(NODES, *shape, dtype=torch.float64)
    ours = gradient(attention, functional, graph, x)
    torch.testing.assert_close(ours, gradient(attention, reference, graph, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("attention", [cosine, dot, supergat])
def test_narrow_gradients_are_those_of_float64(attention, dtype):
    graph = Graph(edges("loops"), num_nodes=NODES)
    x = torch.randn(NODES, 4, 8).to(dtype)
    found = gradient(attention, functional, graph, x)
    exact = gradient(attention, reference, graph, x.double())
    assert found.dtype == dtype
    assert (found.double() - exact).norm() <= 8 * torch.finfo(dtype).eps * exact.norm()


def test_bits_do_not_depend_on_the_number_of_threads():
    graph = Graph(edges("loops"), num_nodes=NODES)
    x = torch.randn(NODES, 4, 32)
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(gradient(cosine, functional, graph, x))
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
def test_second_derivatives(index):
    edge_index = edges("sorted")[:, :60]
    graph = Graph(torch.cat([edge_index, edge_index.flip(0)], dim=1).to(index), num_nodes=NODES)
    x = torch.randn(NODES, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: cosine(functional, graph, x), x, fast_mode=True)


@pytest.mark.parametrize("option", ["bias", "dropout_p", "top_k", "edge_mask", "return_weights"])
def test_what_belongs_to_edges_takes_two_passes(option):
    graph = Graph(edges("loops"), num_nodes=NODES)
    x = torch.randn(NODES, 2, 4, dtype=torch.float64)
    values = {
        "bias": torch.randn(graph.num_edges, 2, dtype=torch.float64),
        "dropout_p": 0.4,
        "top_k": 3,
        "edge_mask": torch.rand(graph.num_edges) < 0.7,
        "return_weights": True,
    }

    def attention(module, graph, x, key=None):
        seed = {"seed": torch.tensor([5])} if option == "dropout_p" else {}
        out = module.cosine_attention(graph, x, key, **{option: values[option]}, **seed)
        return torch.cat([part.flatten() for part in out]) if option == "return_weights" else out

    def of_two_tensors(module, graph, x):
        return attention(module, graph, x, x.clone())

    one = gradient(attention, functional, graph, x)
    torch.testing.assert_close(one, gradient(of_two_tensors, functional, graph, x))
