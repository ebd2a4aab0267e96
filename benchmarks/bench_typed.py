"""HGTConv, projections included, on a graph whose nodes are of three types, with nine relations.

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


def _conv(family: str, case: Case) -> nn.Module:
    if family == "gat_ext":
        from gat_ext.nn import HGTConv
    else:
        from torch_geometric.nn import HGTConv
    setting = case.setting
    return HGTConv(setting.width, setting.width, (list(_TYPES), _RELATIONS), setting.heads)


def _tensors(case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    width = case.setting.width
    names = [f"{lin}.lins.{kind}" for lin in ("kqv_lin", "out_lin") for kind in _TYPES]
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        rows = 3 * width if name.startswith("kqv") else width
        shapes |= {f"{name}.weight": (rows, width), f"{name}.bias": (rows,)}
    size = case.setting.channels
    shape = (case.setting.heads * len(_RELATIONS), size, size)
    shapes |= {"k_rel.weight": shape, "v_rel.weight": shape}
    shapes |= {f"skip.{kind}": (1,) for kind in _TYPES}
    shapes |= {f"p_rel.{'__'.join(r)}": (1, case.setting.heads) for r in _RELATIONS}
    rows = (case.num_nodes, width)
    x, grad_out = normal(rows, case.dtype, generator), normal(rows, case.dtype, generator)
    return {"x": x, "grad_out": grad_out, **draw(shapes, case.dtype, generator)}


def _program(family: str, case: Case) -> Program:
    x, conv = case.tensors["x"].requires_grad_(), _conv(family, case)
    conv.to(x.device, x.dtype)
    leaves = {(name,): parameter for name, parameter in conv.named_parameters()}
    with torch.no_grad():
        for (name,), parameter in leaves.items():
            parameter.copy_(case.tensors[name])
    firsts = _firsts(case.num_nodes)
    sizes = [after - first for first, after in itertools.pairwise(firsts)]
    return Program(_Joined(conv, sizes), (x, _edges(case)), {("x",): x, **leaves})


ITEMS = {
    "hgt": Item(
        title="HGT layer, three types of nodes and nine relations",
        tensors=_tensors,
        build={family: functools.partial(_program, family) for family in ("gat_ext", "pyg")},
        rows={"x": "node", "out": "node"},
        local=False,
        gathers=2,
        projections=7,
    )
}
