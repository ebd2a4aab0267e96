"""Attention on dense matrices: textbook formulas with a mask instead of a graph.

Scores are ``[H, N_dst, N_src]``, a row for each destination; node features are ``[N, H, F]``. A
mask is bool ``[N_dst, N_src]``, True if the row's destination attends to the column's source; None
means all True. A row whose mask is all False, or whose scores are all -inf, has weights 0, output
0, lse -inf and gradients 0. Memory is O(N_dst · N_src).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from gat_ext.graph import Graph


def dense_mask(graph: Graph) -> Tensor:
    """Bool ``[N_dst, N_src]``, True where the graph has an edge.

    Raises:
        ValueError: the graph has multi-edges, which a mask cannot represent.

    Example:
        >>> dense_mask(Graph(torch.tensor([[0, 1], [1, 1]])))
        tensor([[False, False],
                [ True,  True]])
    """
    src, dst = graph.edge_index
    count = torch.zeros((graph.num_dst, graph.num_src), dtype=torch.int64, device=graph.device)
    count.index_put_((dst, src), torch.ones_like(src), accumulate=True)
    if (count > 1).any():
        row, column = (count > 1).nonzero()[0].tolist()
        raise ValueError(
            f"the graph has {int(count[row, column])} edges from {column} to {row}; "
            "expected at most one, because a dense mask cannot represent multi-edges"
        )
    return count > 0


def dense_softmax(scores: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Softmax of every row over the columns of its mask, and the logarithm of its normaliser.

    .. math:: \alpha_{ij} = \exp(s_{ij}) / \sum_{k} \exp(s_{ik}), \quad
        \mathrm{lse}_i = \log \sum_k \exp(s_{ik})

    Args:
        scores: ``[..., N_dst, N_src]``.
        mask: bool ``[N_dst, N_src]`` or None.

    Returns:
        alpha, with the shape of ``scores``, and lse ``[..., N_dst]``.

    Example:
        >>> alpha, lse = dense_softmax(torch.zeros(2, 2), torch.tensor([[True], [False]]))
        >>> alpha.tolist(), lse.exp().tolist()
        ([[0.5, 0.5], [0.0, 0.0]], [2.0, 0.0])
    """
    if scores.shape[-1] == 0:
        return scores, scores.new_full(scores.shape[:-1], -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    largest = scores.detach().amax(-1, keepdim=True)
    shift = torch.where(largest == -torch.inf, 0, largest)
    exponential = (scores - shift).exp()
    total = exponential.sum(-1, keepdim=True)
    empty = total == 0
    total = torch.where(empty, 1, total)
    lse = torch.where(empty, -torch.inf, shift + total.log())
    return exponential / total, lse.squeeze(-1)


def dense_soft_attention(scores: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Soft attention: the mean of the values, weighted by the softmax of each row.

    .. math:: \mathrm{out}_i = \sum_j \alpha_{ij} v_j

    Args:
        scores: ``[H, N_dst, N_src]``.
        value: v, ``[N_src, H, F]``.
        mask: bool ``[N_dst, N_src]`` or None.

    Returns:
        ``[N_dst, H, F]``.

    Source: Bahdanau, Cho, Bengio, "Neural machine translation by jointly learning to align and
    translate", ICLR 2015, eq. 5 and 6.

    Example:
        >>> dense_soft_attention(torch.zeros(1, 1, 2), torch.tensor([[[1.0]], [[3.0]]])).item()
        2.0
    """
    alpha, _ = dense_softmax(scores, mask)
    return torch.einsum("hij,jhf->ihf", alpha, value)


def dense_hard_attention(
    scores: Tensor, value: Tensor, k: int = 1, mask: Tensor | None = None
) -> Tensor:
    """Hard attention: softmax over the k largest scores of each row; other weights are 0.

    With k = 1 every destination reads one source. Ties go to the earlier source. Only kept scores
    and values have gradients.

    Args:
        scores: ``[H, N_dst, N_src]``.
        value: v, ``[N_src, H, F]``.
        k: number of sources that a destination keeps.
        mask: bool ``[N_dst, N_src]`` or None.

    Returns:
        ``[N_dst, H, F]``.

    Source: Xu et al., "Show, attend and tell", ICML 2015, section 4.1, with the largest score
    instead of a sample; Gao and Ji, "Graph representation learning via hard and channel-wise
    attention networks", KDD 2019.

    Example:
        >>> scores, value = torch.tensor([[[0.0, 5.0]]]), torch.tensor([[[1.0]], [[3.0]]])
        >>> dense_hard_attention(scores, value).item()
        3.0
    """
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if mask is not None:
        allowed = allowed & mask
    masked = scores.detach().masked_fill(~allowed, -torch.inf)
    order = masked.sort(dim=-1, descending=True, stable=True).indices
    kept = torch.zeros_like(allowed).scatter(-1, order[..., :k], True)
    alpha, _ = dense_softmax(scores.masked_fill(~(kept & allowed), -torch.inf))
    return torch.einsum("hij,jhf->ihf", alpha, value)


# ---- scores


def dense_dot_scores(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    r"""Scaled dot products of all pairs.

    .. math:: S = Q K^T / \sqrt{d}

    Args:
        query: Q, ``[N_dst, H, D]``.
        key: K, ``[N_src, H, D]``.
        scale: in place of 1 / sqrt(D).

    Returns:
        ``[H, N_dst, N_src]``.

    Source: Vaswani et al., "Attention is all you need", 2017, eq. 1.

    Example:
        >>> dense_dot_scores(torch.ones(1, 1, 4), torch.ones(1, 1, 4)).item()
        2.0
    """
    factor = max(query.shape[-1], 1) ** -0.5 if scale is None else scale
    return factor * torch.einsum("ihd,jhd->hij", query, key)


def dense_concat_scores(
    x_dst: Tensor, x_src: Tensor, weight: Tensor, att: Tensor, negative_slope: float = 0.2
) -> Tensor:
    r"""Additive attention as in the paper: one vector times the concatenated pair.

    .. math:: s_{ij} = \mathrm{LeakyReLU}(a^T [W x_i \,\|\, W x_j])

    Args:
        x_dst: ``[N_dst, C]``.
        x_src: ``[N_src, C]``.
        weight: W, ``[H, F, C]``.
        att: a, ``[H, 2 F]``; the half for the destination first.
        negative_slope: of LeakyReLU; 1 for none.

    Returns:
        ``[H, N_dst, N_src]``; allocates an intermediate ``[H, N_dst, N_src, 2 F]``.

    Source: Veličković et al., "Graph attention networks", ICLR 2018, eq. 3.

    Example:
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> dense_concat_scores(x, x, torch.ones(1, 1, 1), torch.tensor([[10.0, 1.0]]))
        tensor([[[11., 12.],
                 [21., 22.]]])
    """
    left = torch.einsum("hfc,nc->hnf", weight, x_dst)
    right = torch.einsum("hfc,nc->hnf", weight, x_src)
    shape = (weight.shape[0], x_dst.shape[0], x_src.shape[0], weight.shape[1])
    pairs = torch.cat([left[:, :, None].expand(shape), right[:, None].expand(shape)], dim=-1)
    return leaky_relu(torch.einsum("hijf,hf->hij", pairs, att), negative_slope)


def dense_split_scores(
    x_dst: Tensor, x_src: Tensor, weight: Tensor, att: Tensor, negative_slope: float = 0.2
) -> Tensor:
    r"""The same additive attention with a split vector: a sum of two node terms for each pair.

    .. math:: s_{ij} = \mathrm{LeakyReLU}(a_i + b_j), \quad
        a_i = a_{dst}^T W x_i, \quad b_j = a_{src}^T W x_j

    Arguments, result and source are those of :func:`dense_concat_scores`. No intermediate is larger
    than the result; ``a_i`` and ``b_j`` are the dst_term and src_term of ``gat_attention``.

    Example:
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> dense_split_scores(x, x, torch.ones(1, 1, 1), torch.tensor([[10.0, 1.0]]))
        tensor([[[11., 12.],
                 [21., 22.]]])
    """
    att_dst, att_src = att.chunk(2, dim=-1)
    dst_term = torch.einsum("hf,hfc,nc->hn", att_dst, weight, x_dst)
    src_term = torch.einsum("hf,hfc,nc->hn", att_src, weight, x_src)
    return leaky_relu(dst_term[:, :, None] + src_term[:, None], negative_slope)


def dense_bahdanau_scores(
    query: Tensor, key: Tensor, weight_query: Tensor, weight_key: Tensor, att: Tensor
) -> Tensor:
    r"""Bahdanau's additive attention: one hidden layer on every pair.

    .. math:: s_{ij} = v^T \tanh(W_1 q_i + W_2 k_j)

    GATv2 has this form, with LeakyReLU instead of tanh.

    Args:
        query: q, ``[N_dst, C_q]``.
        key: k, ``[N_src, C_k]``.
        weight_query: W_1, ``[H, D, C_q]``.
        weight_key: W_2, ``[H, D, C_k]``.
        att: v, ``[H, D]``.

    Returns:
        ``[H, N_dst, N_src]``.

    Source: Bahdanau, Cho, Bengio, ICLR 2015, appendix A.1.2.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> x = torch.tensor([[0.0]])
        >>> dense_bahdanau_scores(x, x, one, one, torch.ones(1, 1)).item()
        0.0
    """
    left = torch.einsum("hdc,nc->hnd", weight_query, query)
    right = torch.einsum("hdc,nc->hnd", weight_key, key)
    hidden = torch.tanh(left[:, :, None] + right[:, None])
    return torch.einsum("hijd,hd->hij", hidden, att)


def dense_cosine_scores(
    query: Tensor, key: Tensor, beta: float | Tensor = 1.0, eps: float = 1e-12
) -> Tensor:
    r"""Cosine similarities of all pairs, sharpened by an inverse temperature.

    .. math:: s_{ij} = \beta \, \langle q_i, k_j \rangle / (|q_i| \, |k_j|)

    Args:
        query: q, ``[N_dst, H, D]``.
        key: k, ``[N_src, H, D]``.
        beta: a number, or a tensor ``[]`` or ``[H]``.
        eps: lower bound of the norms in the denominator, so that a zero vector has score 0.

    Returns:
        ``[H, N_dst, N_src]``.

    Source: Thekumparampil et al., "Attention-based graph neural network for semi-supervised
    learning", 2018, eq. 5.

    Example:
        >>> dense_cosine_scores(torch.ones(1, 1, 2), torch.tensor([[[3.0, 0.0]]]), beta=2.0).item()
        1.4142135381698608
    """
    unit_query = torch.nn.functional.normalize(query, dim=-1, eps=eps)
    unit_key = torch.nn.functional.normalize(key, dim=-1, eps=eps)
    factor = torch.as_tensor(beta, dtype=query.dtype, device=query.device).reshape(-1, 1, 1)
    return factor * torch.einsum("ihd,jhd->hij", unit_query, unit_key)


# ---- self-attention


def dense_self_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    r"""Plain dense attention.

    .. math:: \mathrm{out} = \mathrm{softmax}(Q K^T / \sqrt{d}) \, V

    Args:
        query: Q, ``[N_dst, H, D]``.
        key: K, ``[N_src, H, D]``.
        value: V, ``[N_src, H, F]``.
        mask: bool ``[N_dst, N_src]`` or None.
        scale: in place of 1 / sqrt(D).

    Returns:
        ``[N_dst, H, F]``.

    Source: Vaswani et al., "Attention is all you need", 2017, eq. 1.

    Example:
        >>> x = torch.tensor([[[1.0]], [[3.0]]])
        >>> dense_self_attention(x, x, x, mask=torch.eye(2, dtype=torch.bool)).flatten()
        tensor([1., 3.])
    """
    return dense_soft_attention(dense_dot_scores(query, key, scale), value, mask)


def dense_qkv_attention(
    x: Tensor, weight_qkv: Tensor, num_heads: int, mask: Tensor | None = None
) -> Tensor:
    r"""Multi-head self-attention: queries, keys and values are projections of the same features.

    .. math:: \mathrm{out} = \big\Vert_h \, \mathrm{softmax}(Q_h K_h^T / \sqrt{d}) V_h,
        \quad Q = X W_Q^T, \; K = X W_K^T, \; V = X W_V^T

    Args:
        x: X, ``[N, C]``.
        weight_qkv: W_Q, W_K and W_V, concatenated by rows, ``[3 H D, C]``, as in
            ``torch.nn.MultiheadAttention.in_proj_weight``.
        num_heads: H.
        mask: bool ``[N, N]`` or None.

    Returns:
        The concatenated heads, ``[N, H D]``.

    Raises:
        ValueError: the number of rows of ``weight_qkv`` is not a multiple of 3 H.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.2.2, without W_O.

    Example:
        >>> dense_qkv_attention(torch.ones(2, 4), torch.ones(6, 4), num_heads=2)
        tensor([[4., 4.],
                [4., 4.]])
    """
    if weight_qkv.shape[0] % (3 * num_heads) != 0:
        raise ValueError(
            f"weight_qkv has {weight_qkv.shape[0]} rows; expected a multiple of "
            f"3 * num_heads = {3 * num_heads}"
        )
    projected = (x @ weight_qkv.t()).reshape(x.shape[0], 3, num_heads, -1)
    query, key, value = projected.unbind(1)
    return dense_self_attention(query, key, value, mask).flatten(1)
