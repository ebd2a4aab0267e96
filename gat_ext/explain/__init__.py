"""What attends to what: the attention of a model's layers, and what can be read from it.

:func:`record_attention` collects the attention of every layer of this package in any
``torch.nn.Module``; :func:`match_edges` does so for what one layer returned. From these come

- :func:`attention_rollout`: how much each input node contributes to given output nodes;
- :func:`attention_entropy`: how widely each node spreads its attention;
- :func:`top_edges`: what a node attends to most, and :func:`draw_edges`, a picture of it.

All of it is sparse and, but for the picture, differentiable. For explanations that are learned,
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
