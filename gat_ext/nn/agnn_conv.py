"""AGNNConv."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gat_ext.features import SparseFeatures
from gat_ext.functional import cosine_attention
from gat_ext.nn import _common as common
from gat_ext.nn._common import Adjacency, Attention
from gat_ext.nn._loops import graph_and_edges


class AGNNConv(nn.Module):
    r"""Propagation by cosine attention: no weights but one inverse temperature.

    .. math::
        x'_i = \sum_{j \in N(i) \cup \{i\}} \alpha_{ij} x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \beta \cos(x_i, x_j)

    Args:
        requires_grad: learn beta; else it stays 1.
        add_self_loops: replace the graph's self-loops by one for every node.

    Shapes:
        x [N, C]; edge_index [2, E] or a Graph; returns [N, C]. With
        ``return_attention_weights=True`` returns (out, (edge_index, alpha [E', 1])), self-loops
        last (an addition to PyG's layer).

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

    def __init__(self, requires_grad: bool = True, add_self_loops: bool = True) -> None:
        """Creates beta; see the class for the arguments."""
        super().__init__()
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
        self, x: Tensor, edge_index: Adjacency, return_attention_weights: bool | None = None
    ) -> Tensor | tuple[Tensor, Attention]:
        """Propagates; see the class for shapes."""
        if isinstance(x, SparseFeatures) or (isinstance(x, Tensor) and x.layout != torch.strided):
            raise TypeError(
                f"x is sparse ({type(x).__name__}); {self} has no projection and expects a dense "
                "torch.Tensor [N, C]: project x first, with SparseFeatures(x).linear(weight)"
            )
        if not isinstance(x, Tensor):
            raise TypeError(f"x is a {type(x).__name__}; {self} expects a torch.Tensor [N, C]")
        if x.dim() != 2:
            raise ValueError(f"x has shape {list(x.shape)}; {self} expects a matrix [N, C]")
        graph, _ = graph_and_edges(
            edge_index, (x.shape[0], x.shape[0]), None, None, 0.0, self.add_self_loops
        )
        result = cosine_attention(
            graph,
            x.unsqueeze(1),
            beta=self.beta,
            return_weights=common.asks_for_weights(return_attention_weights),
        )
        out, weights = common.split_result(result)
        return common.with_attention(out.squeeze(1), graph, weights)

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}()"
