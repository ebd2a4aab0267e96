"""The oracle: what the native operators compute, in plain torch.

Two ways to the same numbers, in any floating-point dtype, on any device, and differentiable to any
order:

- edge lists: :func:`edge_softmax`, :func:`sddmm`, :func:`spmm`, :func:`edge_attention` and its four
  named forms take the arguments of their namesakes in ``gat_ext.functional`` and gather a row for
  every edge. Clear, and wasteful: tensors of E·H·F elements are made freely;
- dense matrices: the ``dense_*`` functions of ``gat_ext.reference.dense``, re-exported here, work
  on masks ``[N_dst, N_src]``.

A destination without in-edges, or whose scores are all -inf, gets output 0, weights 0, lse -inf,
and sends back gradients 0. Everything is computed in the dtype of the inputs: use float64 for a
truth to compare with.

Uses ``graph`` only, and shares no code with what it judges: nothing but tests and
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
from gat_ext.reference.edges import dropout_mask, edge_softmax, sddmm, spmm

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
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "inverse_norm",
    "rank_by_score",
    "score_inputs",
    "sddmm",
    "spmm",
]
