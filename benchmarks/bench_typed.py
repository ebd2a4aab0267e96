"""HGTConv and HANConv, projections included, on nodes of three types with nine relations.

A third of the nodes, by number, is of each type, and the edges from one type to another are a
relation. ``--nodes 194100 --degree 10`` has about the counts of a tenth of ogbn-mag.
"""

from __future__ import annotations

import functools
import itertools

import torch
from bench_layers import draw, normal
from cases import Case
from peers import Item
from timing import Program
from torch import Tensor, nn

_TYPES = ("a", "b", "c")
_RELATIONS = [(src, f"{src}{dst}", dst) for src, dst in itertools.product(_TYPES, _TYPES)]


def _firsts(num_nodes: int) -> list[int]:
    """The first node of each type, and the number of nodes."""
    return [num_nodes * i // len(_TYPES) for i in range(len(_TYPES) + 1)]


def _edges(case: Case) -> dict[tuple[str, str, str], Tensor]:
    first = torch.tensor(_firsts(case.num_nodes), device=case.edge_index.device)
    kind = torch.bucketize(case.edge_index, first[1:], right=True)
    own = case.edge_index.long() - first[kind]
    code = kind[0] * len(_TYPES) + kind[1]
    return {relation: own[:, code == i].contiguous() for i, relation in enumerate(_RELATIONS)}


class _Joined(nn.Module):
    """A layer of dictionaries as a function of the rows of all types, one after the other."""

    def __init__(self, conv: nn.Module, sizes: list[int]) -> None:
        super().__init__()
        self.conv, self.sizes = conv, sizes

    def forward(self, x: Tensor, edges: dict[tuple[str, str, str], Tensor]) -> Tensor:
        out = self.conv(dict(zip(_TYPES, x.split(self.sizes), strict=True)), edges)
        return torch.cat([out[kind] for kind in _TYPES])


def _conv(name: str, family: str, case: Case) -> nn.Module:
    if family == "gat_ext":
        from gat_ext import nn as library
    else:
        from torch_geometric import nn as library
    metadata = (list(_TYPES), _RELATIONS)
    kind, width = getattr(library, f"{name.upper()}Conv"), case.setting.width
    return kind(width, width, metadata, heads=case.setting.heads)


def _tensors(name: str, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    parameters = _conv(name, "gat_ext", case).named_parameters()
    shapes = {own: tuple(parameter.shape) for own, parameter in parameters}
    rows = (case.num_nodes, case.setting.width)
    x, grad_out = normal(rows, case.dtype, generator), normal(rows, case.dtype, generator)
    return {"x": x, "grad_out": grad_out, **draw(shapes, case.dtype, generator)}


def _program(name: str, family: str, case: Case) -> Program:
    x, conv = case.tensors["x"].requires_grad_(), _conv(name, family, case)
    conv.to(x.device, x.dtype)
    leaves = {(own,): parameter for own, parameter in conv.named_parameters()}
    with torch.no_grad():
        for (own,), parameter in leaves.items():
            parameter.copy_(case.tensors[own])
    firsts = _firsts(case.num_nodes)
    sizes = [after - first for first, after in itertools.pairwise(firsts)]
    return Program(_Joined(conv, sizes), (x, _edges(case)), {("x",): x, **leaves})


def _item(name: str, gathers: int, projections: int) -> Item:
    families = ("gat_ext", "pyg")
    return Item(
        title=f"{name.upper()} layer, three types of nodes and nine relations",
        tensors=functools.partial(_tensors, name),
        build={family: functools.partial(_program, name, family) for family in families},
        rows={"x": "node", "out": "node"},
        local=False,
        gathers=gathers,
        projections=projections,
    )


ITEMS = {"hgt": _item("hgt", 2, 7), "han": _item("han", 1, 4)}
"""HGTConv and HANConv; HANConv projects, and then maps the result of each of three relations."""
