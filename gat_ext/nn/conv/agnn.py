"""AGNNConv."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.functional import cosine_attention
from gat_ext.nn import base as common
from gat_ext.nn.adjacency import is_plain, unwrap
from gat_ext.nn.base import Adjacency, Attention
from gat_ext.nn.batch import nodes_first
from gat_ext.nn.features import SparseFeatures
from gat_ext.nn.masks import mask_of_layer
from gat_ext.nn.self_loops import graph_and_edges


class AGNNConv(common.Layer):
    r"""Propagation by cosine attention: no weights but one inverse temperature.

    .. math::
        x'_i = \sum_{j \in N(i) \cup \{i\}} \alpha_{ij} x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \beta \cos(x_i, x_j)

    Args:
        requires_grad: learn beta; else it stays 1.
        add_self_loops: replace the graph's self-loops by one for every node.
        **message_passing: arguments of PyG's base class (aggr, flow, …), taken where they are the
            layer's defaults there.

    Shapes:
        x [N, C]; edge_index [2, E] or a Graph,
        or other forms of edges, see :mod:`gat_ext.nn`; returns [N, C]. With
        ``return_attention_weights=True`` returns (out, (edge_index, alpha [E', 1])), self-loops
        last, mask included (an addition to PyG's layer).
        ``edge_mask`` [E] or [E, 1] multiplies the attention weights of the caller's edges, and may
        learn; self-loops that the layer adds count 1. x may be a batch [B, N, C] of features on one
        graph; then out is [B, N, C] and alpha [E', B, 1].

    Raises:
        TypeError: x is not a dense tensor of floating-point numbers.
        ValueError: sizes do not match.
        IndexError: edge_index names a node that does not exist.

    Source: Thekumparampil, Wang, Oh, Li, "Attention-based Graph Neural Network for Semi-supervised
    Learning", 2018, eq. 5.

    Example:
        >>> import torch
        >>> from gat_ext.nn import AGNNConv
        >>> AGNNConv()(torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 4])
    """

    beta: Tensor

    def __init__(
        self, requires_grad: bool = True, add_self_loops: bool = True, **message_passing: Any
    ) -> None:
        """Creates beta; see the class for the arguments."""
        super().__init__()
        common.check_message_passing(message_passing)
        common.check_flags(requires_grad=requires_grad, add_self_loops=add_self_loops)
        self.requires_grad, self.add_self_loops = requires_grad, add_self_loops
        if requires_grad:
            self.beta = nn.Parameter(torch.ones(1))
        else:
            self.register_buffer("beta", torch.ones(1))

    def reset_parameters(self) -> None:
        """Sets beta to 1 where it is learned."""
        if self.requires_grad:
            nn.init.ones_(self.beta)

    def forward(
        self,
        x: Tensor,
        edge_index: Adjacency,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Propagates; see the class for shapes."""
        adjacency = edge_index
        if not is_plain(adjacency):
            edge_index = unwrap(adjacency)
        if isinstance(x, SparseFeatures) or (isinstance(x, Tensor) and x.layout != torch.strided):
            raise TypeError(
                f"x is sparse ({type(x).__name__}); {self} has no projection and expects a dense "
                "torch.Tensor [N, C]: project x first, with SparseFeatures(x).linear(weight)"
            )
        if not isinstance(x, Tensor):
            raise TypeError(f"x is a {type(x).__name__}; {self} expects a torch.Tensor [N, C]")
        if x.dim() not in (2, 3):
            raise ValueError(f"x has shape {list(x.shape)}; {self} expects a matrix [N, C]")
        is_batch = x.dim() == 3
        heads = nodes_first(x)[0] if is_batch else x.unsqueeze(1)  # [N, B, C]: the batch is heads
        assert isinstance(heads, Tensor)
        sizes = (x.shape[-2], x.shape[-2])
        graph, _ = graph_and_edges(edge_index, sizes, None, None, 0.0, self.add_self_loops)
        if edge_mask is not None:
            edge_mask = mask_of_layer(edge_mask, edge_index, sizes, self.add_self_loops, self)
        result = cosine_attention(
            graph,
            heads,
            beta=self.beta,
            edge_mask=edge_mask,
            return_weights=common.asks_for_weights(return_attention_weights),
        )
        dtype = torch.promote_types(x.dtype, self.beta.dtype)
        out, weights = common.in_dtype(*common.split_result(result), dtype)
        if not is_batch:
            return common.with_attention(
                out.squeeze(1), graph, weights, adjacency, self.add_self_loops
            )
        weights = None if weights is None else weights.unsqueeze(-1)
        return common.with_attention(
            out.transpose(0, 1), graph, weights, adjacency, self.add_self_loops
        )

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}()"
