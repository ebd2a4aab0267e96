"""Explanations of a model by the attention of its layers.

:func:`record_attention` records the attention of every layer of this package in any
``torch.nn.Module``; :func:`match_edges` converts the attention that one layer returned. Measures:

- :func:`attention_rollout`: how much each input node contributes to given output nodes;
- :func:`attention_entropy`: how widely each node spreads its attention;
- :func:`top_edges`: the edges that a node attends to most; :func:`draw_edges` draws them.

All computations are sparse and, except the drawing, differentiable. For learned explanations,
layers and models take an ``edge_mask``.

Uses ``nn``, ``functional`` and ``graph``.
"""

from __future__ import annotations

from gat_ext.explain.draw import draw_edges
from gat_ext.explain.measures import TopEdges, attention_entropy, top_edges
from gat_ext.explain.record import LayerAttention, match_edges, record_attention
from gat_ext.explain.rollout import attention_rollout

__all__ = [
    "LayerAttention",
    "TopEdges",
    "attention_entropy",
    "attention_rollout",
    "draw_edges",
    "match_edges",
    "record_attention",
    "top_edges",
]
