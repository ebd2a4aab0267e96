"""Oracles of the native operators, in plain torch.

Two implementations, for any floating-point dtype and device, and differentiable to any order:

- edge lists: :func:`edge_softmax`, :func:`sddmm`, :func:`spmm`, :func:`edge_dot`,
  :func:`edge_sum`, :func:`edge_attention` and its five named forms take the arguments of the same
  functions in ``gat_ext.functional`` and gather a row for every edge. They are simple and allocate
  tensors of E·H·F elements;
- dense matrices: the ``dense_*`` functions of ``gat_ext.reference.dense``, re-exported here, use
  masks ``[N_dst, N_src]``.

A destination without in-edges, or whose scores are all -inf, has output 0, weights 0, lse -inf and
gradients 0. Results are computed in the dtype of the inputs: use float64 for expected values.

Uses ``graph`` only, and shares no code with the operators that it tests: only tests and
``gat_ext.testing`` may import it.
"""

from gat_ext.reference.attention import (
    SCORES,
    cosine_attention,
    dot_attention,
    edge_attention,
    gat_attention,
    gatv2_attention,
    inverse_norm,
    rank_by_score,
    score_inputs,
    supergat_attention,
)
from gat_ext.reference.dense import (
    dense_bahdanau_scores,
    dense_concat_scores,
    dense_cosine_scores,
    dense_dot_scores,
    dense_hard_attention,
    dense_mask,
    dense_qkv_attention,
    dense_self_attention,
    dense_soft_attention,
    dense_softmax,
    dense_split_scores,
)
from gat_ext.reference.edges import (
    dropout_mask,
    edge_dot,
    edge_softmax,
    edge_sum,
    sddmm,
    spmm,
)

__all__ = [
    "SCORES",
    "cosine_attention",
    "dense_bahdanau_scores",
    "dense_concat_scores",
    "dense_cosine_scores",
    "dense_dot_scores",
    "dense_hard_attention",
    "dense_mask",
    "dense_qkv_attention",
    "dense_self_attention",
    "dense_soft_attention",
    "dense_softmax",
    "dense_split_scores",
    "dot_attention",
    "dropout_mask",
    "edge_attention",
    "edge_dot",
    "edge_softmax",
    "edge_sum",
    "gat_attention",
    "gatv2_attention",
    "inverse_norm",
    "rank_by_score",
    "score_inputs",
    "sddmm",
    "spmm",
    "supergat_attention",
]
