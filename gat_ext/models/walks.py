"""What the walking models share: where agents start, what they learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.graph import Graph
from gat_ext.nn import WalkAgent
from gat_ext.nn.walk_agent import Walks
from gat_ext.ops.walk import draw_starts

if TYPE_CHECKING:
    from typing_extensions import Self

WALKS = {"attention": "sample", "greedy": "greedy", "uniform": "uniform"}
"""Ways of walking, and what WalkAgent calls them."""


class WalkOutput(NamedTuple):
    """What a walking model says of G graphs of K classes, with M agents in each.

    Attributes:
        logits: [G, M, K], of each agent; of a model with shared memory [G, 1, K].
        baseline: [G, M, T - 1], the return that each agent expects before each move but the first.
        walks: of the G·M agents, those of a graph side by side.
        walked: whether each move was drawn by the ranks: only then is there something to reinforce.
    """

    logits: Tensor
    baseline: Tensor
    walks: Walks
    walked: bool

    @property
    def probabilities(self) -> Tensor:
        """[G, K], the average of the agents' softmax."""
        return self.logits.softmax(dim=2).mean(dim=1)


class WalkLoss(NamedTuple):
    """The three parts of the loss, each a scalar.

    Attributes:
        classification: cross-entropy of the class, mean over predictions.
        reinforce: its gradient is the estimate of that of minus the expected reward.
        baseline: mean squared error of the baseline, whose gradient reaches the baseline alone.
    """

    classification: Tensor
    reinforce: Tensor
    baseline: Tensor

    def total(self, reinforce: float = 1.0) -> Tensor:
        """Their sum, with a weight for the part of the walks."""
        return self.classification + reinforce * self.reinforce + self.baseline


class WalkModel(nn.Module, ABC):
    """A classifier of graphs by agents that walk on them.

    Args:
        num_types: R, number of node types.
        num_classes: K.
        num_steps: T, moves of each agent.
        num_agents: M, agents of each graph.
        hidden_channels: of the agents' LSTM.
        step_channels: of the agents' step network.
        attribute_channels: size of the node attributes; None: the type is the attribute.
        walk: how agents move: "attention" (by their ranks), "greedy" (to the best-ranked neighbour)
            or "uniform".
        gamma: discount of the reward for each move that is left to the end.
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
            if size < 1:
                raise ValueError(f"{name} is {size}; expected at least 1")
        if walk not in WALKS:
            raise ValueError(f"walk is {walk!r}; expected one of {', '.join(map(repr, WALKS))}")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma is {gamma}; expected more than 0 and at most 1")
        self.num_steps, self.num_agents, self.walk, self.gamma = num_steps, num_agents, walk, gamma
        self.agent = WalkAgent(
            num_types, hidden_channels, step_channels, attribute_channels=attribute_channels
        )
        self.baseline = nn.Linear(hidden_channels, 1)
        self.classifier = nn.Linear(hidden_channels, num_classes)

    @classmethod
    @abstractmethod
    def preset(cls, dataset: str, num_types: int, num_classes: int, **changes: Any) -> Self:
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
            start: int64 [G, M], the node that each agent starts from; None: a random one of its
                graph.
            num_agents: of each graph where ``start`` is not given; None: the model's. More of them
                than in training make a prediction depend less on chance.
            attributes: of the nodes; given exactly where ``attribute_channels`` is.
            seed: int64 tensor of one element that decides the starts and the walks; None draws one
                from torch's generator.
        """
        if seed is None:
            seed = torch.randint(2**63 - 1, (1,), device=node_ptr.device)
        if start is None:
            num_agents = self.num_agents if num_agents is None else num_agents
            if num_agents < 1:
                raise ValueError(f"num_agents is {num_agents}; expected at least 1")
            start = draw_starts(node_ptr, graphs, num_agents, seed)
        elif start.dim() != 2:
            raise ValueError(
                f"start has shape {list(start.shape)}; expected [G, M], M agents of each graph"
            )
        mode = WALKS[self.walk]
        walks = self.agent(
            graph, node_type, start.flatten(), self.num_steps, mode, attributes, seed
        )
        hidden = walks.hidden.unflatten(0, start.shape)
        # The baseline of a move is of the history before it: one that knew the move would bias the
        # gradient.
        baseline = self.baseline(hidden[:, :, :-1].detach()).squeeze(-1)
        return WalkOutput(self._logits(hidden), baseline, walks, mode == "sample")

    @torch.no_grad()
    def predict(self, graph: Graph, node_type: Tensor, node_ptr: Tensor, **options: Any) -> Tensor:
        """Class probabilities [G, K], averaged over the agents; takes the arguments of forward."""
        return self.forward(graph, node_type, node_ptr, **options).probabilities

    def loss(self, output: WalkOutput, y: Tensor) -> WalkLoss:
        r"""Cross-entropy of the class, and REINFORCE for the walk.

        A prediction's reward R is 1 where it is right and -1 where it is wrong; every agent of the
        prediction gets it. With :math:`\pi_t` the probability of move t, from 1 to T, the
        reinforced part is, for a prediction,

        .. math:: -\sum_{agents} \sum_{t=2}^{T} \log \pi_t \, (\gamma^{T-t+1} R - b_{t-1})

        The first move follows the uniform ranks, which have no gradient. The part is 0 where moves
        are not drawn by the ranks.

        Args:
            output: of :meth:`forward`.
            y: int64 [G], the class of each graph.
        """
        logits, baseline, walks, walked = output
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
