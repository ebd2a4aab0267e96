"""The bytes that processes exchange are those of docs/notes/scaling.md, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Processes
from torch import Tensor

from gat_ext.distributed import DistGraph, Part, make_part
from gat_ext.functional import gat_attention
from gat_ext.nn import AGNNConv, GATConv, GATv2Conv, TransformerConv

SIZE, NODES, HEADS, CHANNELS = 3, 60, 4, 5
INNER = HEADS * CHANNELS  # numbers in a row of all heads

# The layer, and the numbers in the row of a source that travels: value and src_term; the value,
# which is the key; x, which is the value, and its inverse norm; key and value.
LAYERS: dict[str, tuple[Callable[[], Any], int]] = {
    "gat": (lambda: GATConv(7, CHANNELS, heads=HEADS), INNER + HEADS),
    "gatv2": (lambda: GATv2Conv(7, CHANNELS, heads=HEADS), INNER),
    "agnn": (AGNNConv, 7 + 1),
    "transformer": (lambda: TransformerConv(7, CHANNELS, heads=HEADS), 2 * INNER),
}


def part_of(rank: int, size: int) -> Part:
    edges = torch.randint(NODES, (2, 300))
    return make_part(edges, torch.randint(size, (NODES,)), rank, size)


def counted(graph: DistGraph, call: Callable[[], Tensor]) -> tuple[int, int]:
    """Bytes sent forward and backward by one call and its gradient."""
    traffic = graph.traffic
    traffic.forward = traffic.backward = 0
    out = call()
    assert traffic.backward == 0
    if out.requires_grad:
        out.sum().backward()
    return traffic.forward, traffic.backward


def check_layer(group: Any, rank: int, size: int, name: str, mode: str, dtype: torch.dtype) -> None:
    part = part_of(rank, size)
    graph = DistGraph(part, group, mode=mode)
    make, width = LAYERS[name]
    layer = make().to(dtype)
    x = torch.randn(part.num_own_src, 7, dtype=dtype, requires_grad=True)
    row = width * x.element_size()
    rows_again = part.num_sent if mode == "sequential" else 0  # the backward receives rows again
    forward, backward = counted(graph, lambda: layer(x, graph))
    # Rows go to their readers; the gradients of the halo go back to the owners.
    assert backward == part.num_halo * row
    assert forward == (part.num_sent + rows_again) * row
    with torch.no_grad():
        assert counted(graph, lambda: layer(x, graph)) == (part.num_sent * row, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["overlap", "sequential", "gather"])
@pytest.mark.parametrize("name", LAYERS)
def test_halo_rows_times_bytes(
    processes: Processes, name: str, mode: str, dtype: torch.dtype
) -> None:
    processes.run(check_layer, SIZE, name, mode, dtype)


def test_rows_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from scaling_model import Layer

    for name, (_, width) in LAYERS.items():
        heads, channels = (1, 7) if name == "agnn" else (HEADS, CHANNELS)
        assert Layer(name, heads, channels).row == width


def check_heads(group: Any, rank: int, size: int) -> None:
    """By heads: own rows of the other processes' heads go out, all rows of own heads come back."""
    part = part_of(rank, size)
    graph = DistGraph(part, group, mode="heads")
    x = torch.randn(part.num_own_src, 7, requires_grad=True)
    layer = GATConv(7, CHANNELS, heads=HEADS, bias=False)
    forward, backward = counted(graph, lambda: layer(x, graph))
    own = HEADS // size + (rank < HEADS % size)
    out = part.num_own_dst * (HEADS - own)  # rows times heads that this process gives away
    back = (NODES - part.num_own_dst) * own  # and those whose results it returns
    assert forward == 4 * (out * (CHANNELS + 2) + back * CHANNELS)
    assert backward == 4 * (back * (CHANNELS + 2) + out * CHANNELS)


def test_heads(processes: Processes) -> None:
    processes.run(check_heads, SIZE)


def check_frozen(group: Any, rank: int, size: int) -> None:
    """Gradients that no input needs are not sent."""
    part = part_of(rank, size)
    graph = DistGraph(part, group)
    value = torch.randn(part.num_own_src, HEADS, CHANNELS)
    dst_term, src_term = torch.randn(2, part.num_own_src, HEADS).requires_grad_().unbind()
    call = lambda: gat_attention(graph, value, dst_term, src_term.detach())  # noqa: E731
    assert counted(graph, call) == (part.num_sent * (INNER + HEADS) * 4, 0)
    call = lambda: gat_attention(graph, value, dst_term, src_term)  # noqa: E731
    assert counted(graph, call)[1] == part.num_halo * HEADS * 4


def test_frozen_inputs_send_no_gradients(processes: Processes) -> None:
    processes.run(check_frozen, SIZE)


def check_one(group: Any, rank: int, size: int) -> None:
    graph = DistGraph(part_of(rank, size), group)
    x = torch.randn(graph.num_src, 7, requires_grad=True)
    assert counted(graph, lambda: GATConv(7, 3)(x, graph)) == (0, 0)


def test_one_process_sends_nothing(processes: Processes) -> None:
    processes.run(check_one, 1)
