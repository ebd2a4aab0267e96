"""The operators: sparse attention over a :class:`gat_ext.Graph`.

For a destination ``i``, a source ``j`` and a head ``h``::

    s_ij  = score(x_i, y_j, …) + bias_ij
    alpha = softmax of s over the in-edges of i        (over the top_k largest of them, if asked)
    out_i = sum_j alpha_ij · dropout_ij · v_j

:func:`edge_attention` computes all of it in one pass over the edges, for every score;
:func:`gat_attention`, :func:`gatv2_attention`, :func:`dot_attention` and :func:`cosine_attention`
are the same operator under the names of four of its scores.
:func:`edge_softmax`, :func:`sddmm` and :func:`spmm` are the unfused parts.

Shapes: ``N_dst`` and ``N_src`` nodes, ``E`` edges, ``H`` heads, ``D`` score channels, ``F`` value
channels. Per-edge tensors are in the order of the edge_index that the graph was made of. float32,
float64, bfloat16 and float16; sums over 16-bit values are kept in float32. A destination without
in-edges gets 0 and an lse of -inf. All operators are deterministic for any number of threads, and
differentiable any number of times. ``torch.func`` and forward mode work on all but walks; what
these and second derivatives do by torch's own operators is on a GPU as deterministic as
``index_add`` is.

Precision: 16-bit tensors are storage; sums, exponentials, maxima, lse and what the gradients are
made of are float32, float64 for float64. Under ``torch.autocast`` (bfloat16 or float16, CPU or
CUDA) :func:`edge_attention`, :func:`sddmm` and :func:`spmm` take their floating-point inputs in its
dtype and return it, :func:`edge_softmax` and :func:`walk_step` take float32, and float64 stays what
it is; gradients have the dtype of what was given.

Uses ``graph`` and ``ops``. ``checks`` validates arguments, for layers too; the other modules are
called through this one.
"""

from gat_ext.functional.attention import (
    cosine_attention,
    dot_attention,
    edge_attention,
    gat_attention,
    gatv2_attention,
)
from gat_ext.functional.sparse import edge_softmax, sddmm, spmm
from gat_ext.functional.walk import random_walk, walk_step

__all__ = [
    "cosine_attention",
    "dot_attention",
    "edge_attention",
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "random_walk",
    "sddmm",
    "spmm",
    "walk_step",
]
