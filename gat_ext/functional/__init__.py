"""The operators: sparse attention over a :class:`gat_ext.Graph`.

For a destination ``i``, a source ``j`` and a head ``h``::

    s_ij  = score(x_i, y_j, …) + bias_ij
    alpha = softmax of s over the in-edges of i        (with top_k: over the largest scores only)
    out_i = sum_j alpha_ij · dropout_ij · v_j

:func:`edge_attention` computes all of it in one pass over the edges, for every score.
:func:`gat_attention`, :func:`gatv2_attention`, :func:`dot_attention`, :func:`cosine_attention` and
:func:`supergat_attention` call it with one of its scores; :func:`edge_softmax`, :func:`sddmm` and
:func:`spmm` are its unfused parts, :func:`edge_dot` and :func:`edge_sum` those of edge features
that the heads share.

Shapes: ``N_dst`` and ``N_src`` nodes, ``E`` edges, ``H`` heads, ``D`` score channels, ``F`` value
channels. Per-edge tensors are in the order of the edge_index from which the graph was built. A
destination without in-edges gets 0 and an lse of -inf. All operators are deterministic for any
number of threads, and differentiable any number of times. ``torch.func`` and forward mode work on
all but walks. They, and second derivatives of attention, partly use torch's own operators, which on
a GPU are as deterministic as ``index_add``.

Precision: float32, float64, bfloat16 and float16. 16-bit dtypes are for storage only: sums,
exponentials, maxima, lse and intermediate results of gradients are float32. Under
``torch.autocast`` (bfloat16 or float16, CPU or CUDA) :func:`edge_softmax` and :func:`walk_step`
cast floating-point inputs to float32, the others to its dtype, which they return; float64 is never
cast. Gradients have the dtype of the input.

Uses ``graph`` and ``ops``. ``checks`` validates arguments, also for layers; the other modules are
private, and export their functions here.
"""

from gat_ext.functional.additive import gat_attention, gatv2_attention
from gat_ext.functional.attention import edge_attention
from gat_ext.functional.similarity import cosine_attention, dot_attention
from gat_ext.functional.sparse import edge_dot, edge_softmax, edge_sum, sddmm, spmm
from gat_ext.functional.supergat import supergat_attention
from gat_ext.functional.walk import random_walk, walk_step

__all__ = [
    "cosine_attention",
    "dot_attention",
    "edge_attention",
    "edge_dot",
    "edge_softmax",
    "edge_sum",
    "gat_attention",
    "gatv2_attention",
    "random_walk",
    "sddmm",
    "spmm",
    "supergat_attention",
    "walk_step",
]
