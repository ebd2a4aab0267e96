"""AGNNConv."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.functional import checks, cosine_attention
from gat_ext.nn import arguments
from gat_ext.nn.base import AttentionConv, Operands
from gat_ext.nn.batch import Batch, nodes_first
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures, check_dense


class AGNNConv(AttentionConv):
    r"""Propagation by cosine attention; the only parameter is an inverse temperature β.

    .. math::
        x'_i = \sum_{j \in N(i) \cup \{i\}} \alpha_{ij} x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \beta \cos(x_i, x_j)

    Args:
        requires_grad: learn beta; else it stays 1.
        add_self_loops: replace the graph's self-loops by one for every node. For a pair, as in
            GATConv, that is every number of a node which both ends have: pass False if sources and
            destinations of the same number are different nodes.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, C], or a tuple ([N_src, C], [N_dst, C]), which PyG's layer lacks: x_i is then of the
        destinations and x_j of the sources; edge_index [2, E], a Graph or another form of edges,
        see :mod:`gat_ext.nn`; returns [N_dst, C]. With ``return_attention_weights=True``, which
        PyG's layer lacks, returns (out, (edge_index, alpha [E', 1])), with self-loops last and
        alpha masked.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, 1], real numbers
        (differentiable) or booleans, multiplies the attention weights of the caller's edges after
        the softmax: Σ_j w_ij α_ij x_j. It does not apply to added self-loops.
        x may be a batch [B, N, C] of features on one graph, with any number of axes B; then out is
        [B, N, C] and alpha [E', B, 1].

    Raises:
        TypeError: x is neither a dense floating-point tensor nor a pair of them.
        ValueError: sizes do not match.
        IndexError: a node number in edge_index is out of range.

    Source: Thekumparampil, Wang, Oh, Li, "Attention-based Graph Neural Network for Semi-supervised
    Learning", 2018, eq. 5.

    Example:
        >>> import torch
        >>> from gat_ext.nn import AGNNConv
        >>> AGNNConv()(torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 4])
    """

    operator = staticmethod(cosine_attention)
    score_factors = ("beta",)
    beta: Tensor

    def __init__(
        self, requires_grad: bool = True, add_self_loops: bool = True, **message_passing: Any
    ) -> None:
        """Creates beta; see the class for the arguments."""
        super().__init__()
        arguments.check_message_passing(message_passing)
        arguments.check_flags(requires_grad=requires_grad, add_self_loops=add_self_loops)
        self.requires_grad, self.add_self_loops = requires_grad, add_self_loops
        if requires_grad:
            self.beta = nn.Parameter(torch.ones(1))
        else:
            self.register_buffer("beta", torch.ones(1))

    def reset_parameters(self) -> None:
        """Resets beta to 1 if it is learned."""
        if self.requires_grad:
            nn.init.ones_(self.beta)

    def forward(  # type: ignore[override]  # in the order of PyG's
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Propagates; see the class for shapes."""
        options = return_attention_weights, edge_mask, edge_weight
        return self.attend(x, edge_index, None, None, *options)

    def split(self, x: NodeFeatures) -> tuple[Features, Features | None, Batch | None]:
        """(x_src, x_dst, B); raises for sparse x, because the layer has no projection."""
        ends: tuple[Any, ...] = tuple(x) if isinstance(x, (tuple, list)) else (x, x)
        if len(ends) != 2:
            raise TypeError(
                f"x is a {type(x).__name__} of {len(ends)} elements; {self} expects a torch.Tensor "
                "[N, C], or a pair (x_src, x_dst)"
            )
        x_src, x_dst = ends
        check_dense("x", x_src, self)
        if x_dst is not None and x_dst is not x_src:
            check_dense("x of the destinations", x_dst, self)
            checks.same_kind(x_src, "x of the sources", x_dst, "x of the destinations")
            if x_src.shape[-1] != x_dst.shape[-1]:
                raise ValueError(
                    f"x of the sources has shape {list(x_src.shape)}, x of the destinations "
                    f"{list(x_dst.shape)}; {self} expects the same number of channels, because it "
                    "has no projection: project one of them first"
                )
        moved: Any
        moved, batch = nodes_first(x if isinstance(x, Tensor) else (x_src, x_dst))
        src, dst = (moved, moved) if isinstance(moved, Tensor) else moved
        return src, dst, batch

    def project(
        self, x_src: Features, x_dst: Features | None, edge_attr: Tensor | None, num_dst: int
    ) -> Operands:
        """X itself, as one head; queries are those of the destinations."""
        assert isinstance(x_src, Tensor) and isinstance(x_dst, Tensor)
        key = x_src.flatten(0, -2).unsqueeze(1)
        if x_dst is x_src:
            return Operands((key,), {"beta": self.beta})
        query = x_dst.flatten(0, -2).unsqueeze(1)
        return Operands((query, key), {"beta": self.beta})

    def result_dtype(self, x: Features, out: Tensor) -> torch.dtype:
        """The dtype of x times beta."""
        return torch.promote_types(x.dtype, self.beta.dtype)

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}()"
