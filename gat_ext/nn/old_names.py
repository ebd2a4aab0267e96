"""Renames parameters of GATConv that older versions of PyTorch Geometric saved."""

from __future__ import annotations

from torch import Tensor


def rename(state: dict[str, Tensor], prefix: str, out_channels: int, *, shared: bool) -> None:
    """Renames, in place, the parameters of a GATConv that an older PyG saved.

    ===========  ==============================================  ======================
    version      saved name                                      name here
    ===========  ==============================================  ======================
    2.0 to 2.5   lin_src.weight, lin_dst.weight (the same)       lin.weight
    1.6 and 1.7  lin_l.weight, lin_r.weight (the same)           lin.weight
    1.6 and 1.7  lin_l.weight, lin_r.weight (a projection each)  lin_src, lin_dst
    1.6 and 1.7  att_l, att_r                                    att_src, att_dst
    to 1.5       weight [in, H · C]                              lin.weight, transposed
    to 1.5       att [1, H, 2 · C]                               att_dst, then att_src
    ===========  ==============================================  ======================

    Args:
        state: the state_dict of a model, modified in place.
        prefix: prefix of the layer's keys.
        out_channels: C.
        shared: whether the layer has one projection for both ends of an edge.
    """

    def take(name: str) -> Tensor | None:
        return state.pop(prefix + name, None)

    def move(old: str, new: str) -> None:
        if (tensor := take(old)) is not None:
            state[prefix + new] = tensor

    if not shared:
        move("lin_l.weight", "lin_src.weight")
        move("lin_r.weight", "lin_dst.weight")
    elif f"{prefix}lin.weight" not in state:
        for one, other in (("lin_src", "lin_dst"), ("lin_l", "lin_r")):
            first, second = state.get(f"{prefix}{one}.weight"), state.get(f"{prefix}{other}.weight")
            # Two different projections belong to a layer with a pair of in_channels: their names
            # stay, so that torch reports them as unexpected.
            if first is not None and (second is None or first.equal(second)):
                state[f"{prefix}lin.weight"] = first
                take(f"{one}.weight"), take(f"{other}.weight")
        if (weight := take("weight")) is not None:
            state[f"{prefix}lin.weight"] = weight.t().contiguous()
    move("att_l", "att_src")
    move("att_r", "att_dst")
    if (both := take("att")) is not None:
        state[f"{prefix}att_dst"], state[f"{prefix}att_src"] = (
            both[..., :out_channels].contiguous(),
            both[..., out_channels:].contiguous(),
        )
