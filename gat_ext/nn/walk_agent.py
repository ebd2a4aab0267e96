"""WalkAgent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.functional import checks, random_walk, walk_step
from gat_ext.graph import Graph
from gat_ext.nn.arguments import check_size

WALK_MODES = ("sample", "greedy", "uniform")
MOST_STEPS = 1_000_000


class Walks(NamedTuple):
    """The walks of B agents over T steps.

    Attributes:
        nodes: int64 [B, T + 1], the node of each agent, from its start on.
        log_prob: [B, T], log-probability of each move.
        hidden: [B, T, H], the hidden state of the LSTM after each move.
        rank: [B, T, R], the agent's rank of each type before each move; rank[:, 0] is uniform.
    """

    nodes: Tensor
    log_prob: Tensor
    hidden: Tensor
    rank: Tensor


class WalkAgent(nn.Module):
    r"""A recurrent agent that walks on a graph and learns which types of nodes to visit.

    From node :math:`c_{t-1}` it moves to a neighbour :math:`c_t`, reads its attributes
    :math:`d_{c_t}`, and computes new ranks of the R types:

    .. math::
        P(c_t = j) = \frac{r_{t-1}[\mathrm{type}(j)]}{\sum_{k \in N(c_{t-1})}
        r_{t-1}[\mathrm{type}(k)]}, \qquad s_t = f_s(d_{c_t}, r_{t-1}), \qquad h_t =
        \mathrm{LSTM}(s_t, h_{t-1}), \qquad r_t = \mathrm{softmax}(W_r h_t + b_r)

    with :math:`r_0` uniform, :math:`h_0 = 0`, and

    .. math::
        f_s(d, r) = \mathrm{relu}(W_s [\mathrm{relu}(W_d d + b_d)
                    \,\|\, \mathrm{relu}(W_\rho r + b_\rho)] + b_s)

    Args:
        num_types: R.
        hidden_channels: H, the hidden size of the LSTM.
        step_channels: sizes of the step network: (rows of W_d and W_ρ, rows of W_s).
        attribute_channels: size D of the node attributes d; None: d is the one-hot vector of the
            type, which is looked up and never materialised.

    Shapes:
        graph of N nodes, block-diagonal for several; node_type int64 [N]; start int64 [B];
        attributes [N, D]. Returns :class:`~gat_ext.nn.walk_agent.Walks` (nodes [B, T + 1], log_prob
        [B, T], hidden [B, T, H], rank [B, T, R]).

    Raises:
        TypeError: a tensor has the wrong dtype, or num_steps is not an integer.
        ValueError: a size is below 1 or above its bound, shapes or devices do not match, or the
            mode is unknown.
        IndexError: start or node_type is out of range.

    Cost: a step of all agents is one matrix product for each linear map, and one native walk step.

    Source: Lee, Rossi, Kong, "Graph Classification using Structural Attention", KDD 2018, section
    3.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.nn import WalkAgent
        >>> ring = Graph(torch.tensor([[1, 2, 0], [0, 1, 2]]))
        >>> walks = WalkAgent(num_types=2)(ring, torch.tensor([0, 1, 1]), torch.tensor([0, 2]), 4)
        >>> walks.nodes, walks.hidden.shape
        (tensor([[0, 1, 2, 0, 1],
                 [2, 0, 1, 2, 0]]), torch.Size([2, 4, 156]))
    """

    def __init__(
        self,
        num_types: int,
        hidden_channels: int = 156,
        step_channels: tuple[int, int] = (128, 164),
        *,
        attribute_channels: int | None = None,
    ) -> None:
        """Creates the networks; see the class for the arguments."""
        super().__init__()
        if not isinstance(step_channels, (tuple, list)) or len(step_channels) != 2:
            raise TypeError(f"step_channels is {step_channels!r}; expected a pair of integers")
        space, combined = step_channels
        sizes = {
            "num_types": num_types,
            "hidden_channels": hidden_channels,
            "step_channels[0]": space,
            "step_channels[1]": combined,
            "attribute_channels": attribute_channels,
        }
        for name, size in sizes.items():
            if size is not None or name != "attribute_channels":
                check_size(name, size)
        self.num_types, self.hidden_channels = num_types, hidden_channels
        self.attribute_channels = attribute_channels
        self.attribute = nn.Linear(attribute_channels or num_types, space)
        self.preference = nn.Linear(num_types, space)
        self.combine = nn.Linear(2 * space, combined)
        self.cell = nn.LSTMCell(combined, hidden_channels)
        self.rank = nn.Linear(hidden_channels, num_types)
        self._init_type_columns()

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        for layer in (self.attribute, self.preference, self.combine, self.cell, self.rank):
            layer.reset_parameters()
        self._init_type_columns()

    def _init_type_columns(self) -> None:
        """Initialises the columns of W_d for one-hot types from N(0, 1), as those of an embedding.

        With the small weights of a linear layer all types have nearly equal embeddings at first,
        and agents that rarely see the type that decides the class do not learn to visit it.
        """
        if self.attribute_channels is None:
            nn.init.normal_(self.attribute.weight)

    def forward(
        self,
        graph: Graph,
        node_type: Tensor,
        start: Tensor,
        num_steps: int,
        mode: str = "sample",
        attributes: Tensor | None = None,
        seed: Tensor | None = None,
    ) -> Walks:
        """Walks.

        Args:
            graph: with num_src = num_dst.
            node_type: the type of each node, from 0 to R - 1.
            start: the node that each agent starts from.
            num_steps: T, from 1 to ``MOST_STEPS``.
            mode: ``"sample"`` draws each move by the formula, ``"greedy"`` takes the best-ranked
                neighbour, ``"uniform"`` ignores the ranks.
            attributes: [N, D], of the nodes; required with ``attribute_channels``, else None.
            seed: int64 tensor of one element, which determines all draws; None draws one from
                torch's generator.
        """
        self._check(graph, node_type, start, num_steps, mode, attributes)
        if seed is None:
            seed = torch.randint(2**63 - 1, (1,), device=start.device)
        attribute_part = self._attribute_part(node_type, attributes)
        preference = self.combine.weight[:, self.preference.out_features :].t()
        drawn = random_walk(graph, start, num_steps, seed=seed) if mode == "uniform" else None
        weight = self.preference.weight
        rank = weight.new_full((start.shape[0], self.num_types), 1 / self.num_types)
        hidden = cell = weight.new_zeros(start.shape[0], self.hidden_channels)
        nodes, log_probs, history, ranks = [start], [], [], [rank]
        for step in range(num_steps):
            if drawn is None:
                node, log_prob = walk_step(
                    graph, nodes[-1], rank, node_type, mode=mode, seed=seed, step=step
                )
            else:
                node = drawn[:, step + 1]
                log_prob = -_degree(graph, nodes[-1]).clamp(min=1).to(rank.dtype).log()
            seen = F.relu(
                torch.addmm(attribute_part(node), F.relu(self.preference(rank)), preference)
            )
            hidden, cell = self.cell(seen, (hidden, cell))
            nodes.append(node)
            log_probs.append(log_prob)
            history.append(hidden)
            if step + 1 < num_steps:
                rank = self.rank(hidden).softmax(dim=1)
                ranks.append(rank)
        stacks = (torch.stack(each, dim=1) for each in (nodes, log_probs, history, ranks))
        return Walks(*stacks)

    def _attribute_part(
        self, node_type: Tensor, attributes: Tensor | None
    ) -> Callable[[Tensor], Tensor]:
        """A function from nodes [B] to W_s relu(W_d d + b_d) + b_s, [B, combined]."""
        weight = self.combine.weight[:, : self.attribute.out_features].t()
        bias = self.combine.bias
        if attributes is not None:
            return lambda node: torch.addmm(
                bias, F.relu(self.attribute(attributes.index_select(0, node))), weight
            )
        # A one-hot vector selects a column of the weight: a table of R rows, computed once.
        table = torch.addmm(bias, F.relu(self.attribute.weight.t() + self.attribute.bias), weight)
        return lambda node: F.embedding(node_type.index_select(0, node), table)

    def _check(
        self,
        graph: Graph,
        node_type: Tensor,
        start: Tensor,
        num_steps: int,
        mode: str,
        attributes: Tensor | None,
    ) -> None:
        checks.is_whole(graph, "a walking agent")
        checks.choice(mode, WALK_MODES, "mode")
        check_size("num_steps", num_steps, MOST_STEPS)
        checks.indices(graph, node_type, "node_type", graph.num_nodes)
        checks.in_range(node_type, self.num_types, "node_type", "num_types")
        checks.indices(graph, start, "start")
        checks.in_range(start, graph.num_nodes, "start", "the number of nodes")
        channels = self.attribute_channels
        if channels is None and attributes is not None:
            raise ValueError(
                "attributes were given, but the agent has attribute_channels=None and reads types "
                "only; construct it with attribute_channels, or leave attributes out"
            )
        if attributes is not None:
            checks.same_kind(self.attribute.weight, "the weight", attributes, "attributes")
        expected = (graph.num_nodes, channels)
        if channels is not None and (attributes is None or attributes.shape != expected):
            given = "not given" if attributes is None else f"of shape {list(attributes.shape)}"
            raise ValueError(
                f"attributes are {given}; expected a tensor {list(expected)}, because the agent "
                f"has attribute_channels={channels}"
            )

    def __repr__(self) -> str:
        """The sizes."""
        return (
            f"{type(self).__name__}(num_types={self.num_types}, "
            f"hidden_channels={self.hidden_channels}, "
            f"step_channels=({self.attribute.out_features}, {self.combine.out_features}), "
            f"attribute_channels={self.attribute_channels})"
        )


def _degree(graph: Graph, node: Tensor) -> Tensor:
    """In-degree of some nodes, [B]."""
    return graph.rowptr.index_select(0, node + 1) - graph.rowptr.index_select(0, node)
