"""Arguments of edge_attention, for tests of the operator."""

from __future__ import annotations

import torch

from gat_ext.ops.arguments import (
    EdgeAttention,
)


def leaves(inputs):
    return {
        k: v
        for k, v in inputs.items()
        if isinstance(v, torch.Tensor) and k not in ("seed", "dropout_mask")
    }


def raw_arguments(inputs, graph):
    t = graph.transpose()
    own_id = None if graph.edge_id is None else t.edge_id
    return EdgeAttention(
        **dict(rowptr=graph.rowptr, col=graph.col, edge_id=graph.edge_id),
        **dict(t_rowptr=t.rowptr, t_col=t.col, t_pos=t.pos, t_edge_id=own_id),
        **dict(edge_in_value=False, negative_slope=0.2, scale=1.0, dropout_p=0.0, top_k=0)
        | dict(return_weights=True, return_lse=True)
        | inputs,
    )
