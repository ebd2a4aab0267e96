"""Base class of the walking models: starts of the agents, forward pass and loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypedDict, Unpack

from gat_ext.functional import checks
from gat_ext.functional.options import with_options_of
from gat_ext.graph import Graph
from gat_ext.models.loading import Loadable
from gat_ext.nn import WalkAgent
from gat_ext.nn.arguments import check_size
from gat_ext.nn.linear import reset_
from gat_ext.nn.walk_agent import MOST_STEPS, Walks
from gat_ext.ops.walk import draw_starts

if TYPE_CHECKING:
    from typing_extensions import Self

WALKS = {"attention": "sample", "greedy": "greedy", "uniform": "uniform"}
"""Ways of walking, and WalkAgent's names for them."""


class WalkOutput(NamedTuple):
    """The output of a walking model for G graphs of K classes, with M agents in each.

    Attributes:
        logits: [G, M, K], of each agent; [G, 1, K] for a model with shared memory.
        baseline: [G, M, T - 1], each agent's expected return before each move except the first.
        walks: walks of the G·M agents; those of a graph are adjacent.
        walked: True if moves were drawn by the ranks, so that REINFORCE applies.
    """

    logits: Tensor
    baseline: Tensor
    walks: Walks
    walked: bool

    @property
    def probabilities(self) -> Tensor:
        """[G, K], the softmax averaged over the agents."""
        return self.logits.softmax(dim=2).mean(dim=1)


class WalkLoss(NamedTuple):
    """The three parts of the loss, each a scalar.

    Attributes:
        classification: cross-entropy of the class, mean over predictions.
        reinforce: a surrogate whose gradient estimates that of the negative expected reward.
        baseline: mean squared error of the baseline; its gradient reaches only the baseline.
    """

    classification: Tensor
    reinforce: Tensor
    baseline: Tensor

    def total(self, reinforce: float = 1.0) -> Tensor:
        """The sum of the parts, with a weight for ``reinforce``."""
        return self.classification + reinforce * self.reinforce + self.baseline


def _number_of_graphs(graph: Graph, node_ptr: Tensor, graphs: Tensor | None) -> int:
    """G, of the graphs to classify; raises unless node_ptr and graphs match the graph."""
    checks.is_whole(graph, "a walk")
    checks.indices(graph, node_ptr, "node_ptr", shape="[G + 1]")
    count = checks.node_pointers(node_ptr, graph.num_nodes, at_least=1)
    if graphs is None:
        return count
    checks.indices(graph, graphs, "graphs", shape="[G]")
    checks.in_range(graphs, count, "graphs", "the number of graphs")
    return graphs.shape[0]


class WalkOptions(TypedDict, total=False):
    """Keyword arguments of a :class:`WalkModel`, except num_agents."""

    num_steps: int
    hidden_channels: int
    step_channels: tuple[int, int]
    attribute_channels: int | None
    walk: str
    gamma: float


class AllWalkOptions(WalkOptions, total=False):
    """Keyword arguments of a :class:`WalkModel`."""

    num_agents: int


class CallOptions(TypedDict, total=False):
    """Keyword arguments of a call of a :class:`WalkModel`."""

    graphs: Tensor | None
    start: Tensor | None
    num_agents: int | None
    attributes: Tensor | None
    seed: Tensor | None


class WalkModel(Loadable, nn.Module, ABC):
    """A graph classifier whose agents walk on the graphs.

    Args:
        num_types: R, number of node types.
        num_classes: K.
        num_steps: T, moves of each agent.
        num_agents: M, agents of each graph.
        hidden_channels: hidden size of the agents' LSTM.
        step_channels: sizes of the agents' step network.
        attribute_channels: size of the node attributes; None: the type is the attribute.
        walk: how agents move: "attention" (by their ranks), "greedy" (to the best-ranked neighbour)
            or "uniform".
        gamma: discount of the reward for each remaining move.
    """

    def __init__(
        self,
        num_types: int,
        num_classes: int,
        *,
        num_steps: int = 12,
        num_agents: int = 20,
        hidden_channels: int = 156,
        step_channels: tuple[int, int] = (128, 164),
        attribute_channels: int | None = None,
        walk: str = "attention",
        gamma: float = 1.0,
    ) -> None:
        """Creates the networks; see the class for the arguments."""
        super().__init__()
        sizes = {"num_classes": num_classes, "num_steps": num_steps, "num_agents": num_agents}
        for name, size in sizes.items():
            check_size(name, size, MOST_STEPS if name == "num_steps" else None)
        checks.choice(walk, tuple(WALKS), "walk")
        if not 0 < checks.number(gamma, "gamma") <= 1:
            raise ValueError(f"gamma is {gamma}; expected more than 0 and at most 1")
        self.num_steps, self.num_agents, self.walk, self.gamma = num_steps, num_agents, walk, gamma
        self.agent = WalkAgent(
            num_types, hidden_channels, step_channels, attribute_channels=attribute_channels
        )
        self.baseline = nn.Linear(hidden_channels, 1)
        self.classifier = nn.Linear(hidden_channels, num_classes)

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(*self.children())

    @classmethod
    @abstractmethod
    def preset(
        cls, dataset: str, num_types: int, num_classes: int, **changes: Unpack[AllWalkOptions]
    ) -> Self:
        """The paper's settings for a data set.

        Args:
            dataset: name of the data set.
            num_types: number of node types.
            num_classes: number of classes.
            **changes: constructor arguments to set otherwise.
        """

    @abstractmethod
    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits [G, M or 1, K] of the histories [G, M, T, H]."""

    def forward(
        self,
        graph: Graph,
        node_type: Tensor,
        node_ptr: Tensor,
        *,
        graphs: Tensor | None = None,
        start: Tensor | None = None,
        num_agents: int | None = None,
        attributes: Tensor | None = None,
        seed: Tensor | None = None,
    ) -> WalkOutput:
        """Walks on graphs and classifies them.

        Args:
            graph: the graphs as one, block-diagonal, with N nodes.
            node_type: int64 [N], from 0 to R - 1.
            node_ptr: int64, graph g has the nodes ``node_ptr[g]:node_ptr[g + 1]``, at least one.
            graphs: int64 [G], the numbers of the graphs to classify; None: all. The others cost
                nothing.
            start: int64 [G, M], the start node of each agent; None: a random node of its graph.
            num_agents: agents of each graph if ``start`` is None; None: the model's number. More
                agents than in training reduce the variance of predictions.
            attributes: [N, D], of the nodes; required with ``attribute_channels``, else None.
            seed: int64 tensor of one element, which determines starts and walks; None draws one
                from torch's generator.

        Raises:
            TypeError: an argument has another type or dtype.
            ValueError: shapes or devices do not match; or node_ptr does not go from 0 to N with at
                least one node for each graph, which within torch.compile is not looked at.
            IndexError: node_type, graphs or start is out of range; likewise.
        """
        num_graphs = _number_of_graphs(graph, node_ptr, graphs)
        if seed is None:
            seed = torch.randint(2**63 - 1, (1,), device=node_ptr.device)
        if start is None:
            num_agents = self.num_agents if num_agents is None else num_agents
            check_size("num_agents", num_agents)
            start = draw_starts(node_ptr, graphs, num_agents, checks.seed(seed, node_ptr.device))
        elif not isinstance(start, Tensor):
            raise TypeError(f"start is a {type(start).__name__}; expected a torch.Tensor")
        elif start.dim() != 2 or start.shape[0] != num_graphs:
            raise ValueError(
                f"start has shape {list(start.shape)}; expected [{num_graphs}, M], M agents of "
                "each graph"
            )
        mode = WALKS[self.walk]
        walks = self.agent(
            graph, node_type, start.flatten(), self.num_steps, mode, attributes, seed
        )
        hidden = walks.hidden.unflatten(0, start.shape)
        # The baseline of a move may depend only on the history before it; otherwise it would bias
        # the gradient.
        baseline = self.baseline(hidden[:, :, :-1].detach()).squeeze(-1)
        return WalkOutput(self._logits(hidden), baseline, walks, mode == "sample")

    @torch.no_grad()
    @with_options_of(forward, CallOptions)
    def predict(
        self, graph: Graph, node_type: Tensor, node_ptr: Tensor, **options: Unpack[CallOptions]
    ) -> Tensor:
        """Class probabilities [G, K], averaged over the agents; takes the arguments of forward."""
        return self.forward(graph, node_type, node_ptr, **options).probabilities

    def loss(self, output: WalkOutput, y: Tensor) -> WalkLoss:
        r"""Cross-entropy of the class, and REINFORCE for the walk.

        The reward R of a prediction is 1 if it is right and -1 if it is wrong; every agent of the
        prediction receives it. With :math:`\pi_t` the probability of move t, from 1 to T, the
        REINFORCE part of a prediction is

        .. math:: -\sum_{agents} \sum_{t=2}^{T} \log \pi_t \, (\gamma^{T-t+1} R - b_{t-1})

        The first move follows the uniform ranks, which have no gradient. This part is 0 if moves
        are not drawn by the ranks.

        Args:
            output: the result of :meth:`forward`.
            y: int64 [G], the class of each graph.
        """
        if not isinstance(output, WalkOutput):
            raise TypeError(f"output is a {type(output).__name__}; expected that of a call")
        logits, baseline, walks, walked = output
        num_graphs = logits.shape[0]
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (num_graphs,):
            given = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"y is {given}; expected int64 [{num_graphs}], a class for each graph")
        shape = logits.shape[:2]
        target = y.unsqueeze(1).expand(shape)
        classification = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        reward = 2 * (logits.detach().argmax(dim=2) == target).to(logits.dtype) - 1
        left = torch.arange(baseline.shape[2], 0, -1, device=logits.device)
        returns = reward.unsqueeze(2) * self.gamma ** left.to(logits.dtype)
        advantage = returns - baseline.detach()
        log_prob = walks.log_prob[:, 1:].view_as(baseline)
        chosen = -(advantage * log_prob).sum() / reward.numel()
        reinforce = chosen if walked else torch.zeros_like(classification)
        error = (baseline - returns).square().sum() / max(baseline.numel(), 1)
        return WalkLoss(classification, reinforce, error)
