"""Parameters of DGL's attention layers under the names of the layers here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_GAT = {
    "fc.weight": "lin.weight",
    "fc_src.weight": "lin_src.weight",
    "fc_dst.weight": "lin_dst.weight",
    "attn_l": "att_src",
    "attn_r": "att_dst",
    "bias": "bias",
    "res_fc.weight": "res.weight",
    "res_fc.bias": "bias",
}
_EDGE_GAT = _GAT | {"fc_edge.weight": "lin_edge.weight", "attn_edge": "att_edge"}
_GATV2 = {
    "fc_src.weight": "lin_l.weight",
    "fc_src.bias": "lin_l.bias",
    "fc_dst.weight": "lin_r.weight",
    "fc_dst.bias": "lin_r.bias",
    "attn": "att",
    "res_fc.weight": "res.weight",
    "res_fc.bias": "bias",
}


def from_dgl(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts the state_dict of a model of DGL's attention layers to the names of those here.

    What belongs to a layer is known by its attention vector and its projection: ``attn_l`` and
    ``fc`` or ``fc_src`` (GATConv; with ``fc_edge`` EdgeGATConv, which is that of :mod:`gat_ext.nn`,
    not GATConv with edge_dim), ``attn`` and ``fc_src`` (GATv2Conv). All else keeps its name,
    ``beta`` of AGNNConv too, which is the same here. DGL's layers add no self-loops: make these
    with ``add_self_loops=False``. Without a residual GATv2Conv has no bias on the result there: set
    ``bias`` to zeros, and load with ``strict=False``. A residual between equal sizes is the
    identity there and has no parameter: set ``res.weight`` to it.

    Args:
        state_dict: of a DGL layer, or of a module that contains some; not changed.

    Returns:
        A new dictionary that shares the tensors.

    Raises:
        TypeError: state_dict is no mapping of names to tensors.
        ValueError: a layer has a parameter that the layers here have no place for.

    Example:
        >>> weights = {"gat.fc.weight": torch.ones(8, 5), "gat.attn_l": torch.ones(1, 2, 4)}
        >>> others = {"gat.attn_r": torch.ones(1, 2, 4), "out.weight": torch.ones(1)}
        >>> sorted(from_dgl(weights | others))
        ['gat.att_dst', 'gat.att_src', 'gat.lin.weight', 'out.weight']
    """
    _check_state(state_dict)
    names: dict[str, dict[str, str]] = {}
    for key in state_dict:
        prefix, _, name = key.rpartition(".")
        start = f"{prefix}." if prefix else ""
        if name == "attn_l" and (
            f"{start}fc.weight" in state_dict or f"{start}fc_src.weight" in state_dict
        ):
            names[prefix] = _EDGE_GAT if f"{start}fc_edge.weight" in state_dict else _GAT
        elif name == "attn" and f"{start}fc_src.weight" in state_dict:
            names[prefix] = _GATV2
    converted: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        layer = next((p for p in names if key.startswith(f"{p}." if p else "")), None)
        if layer is None:
            converted[key] = tensor
            continue
        start = f"{layer}." if layer else ""
        name = key.removeprefix(start)
        if name not in names[layer]:
            raise ValueError(
                f"{key} of DGL's layer has no counterpart; expected {', '.join(names[layer])}"
            )
        converted[start + names[layer][name]] = tensor
    return converted


def _check_state(state_dict: Any) -> None:
    if not isinstance(state_dict, Mapping):
        hint = ": model.state_dict()" if hasattr(state_dict, "state_dict") else ""
        raise TypeError(
            f"state_dict is a {type(state_dict).__name__}; from_dgl expects the state_dict of a "
            f"model, a dictionary of tensors by their names{hint}"
        )
    for key, tensor in state_dict.items():
        if not isinstance(key, str):
            raise TypeError(f"state_dict has the key {key!r}; from_dgl expects names of parameters")
        if not isinstance(tensor, Tensor) and not key.endswith("_extra_state"):
            hint = "; give its entry of the model alone" if isinstance(tensor, Mapping) else ""
            raise TypeError(
                f"state_dict[{key!r}] is a {type(tensor).__name__}; from_dgl expects tensors{hint}"
            )
