"""GAM and GAMMemory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from typing_extensions import Unpack

from gat_ext.functional.options import with_options_of
from gat_ext.models.walks import AllWalkOptions, WalkModel, WalkOptions

if TYPE_CHECKING:
    from typing_extensions import Self


class GAM(WalkModel):
    """Graph attention model: agents walk on a graph and classify it; predictions are averaged.

    Args:
        num_types: R, number of node types.
        num_classes: K.
        num_steps: T, moves of each agent.
        num_agents: M, agents of each graph.
        hidden_channels: hidden size of the agents' LSTM.
        step_channels: sizes of the agents' step network, see :class:`gat_ext.nn.WalkAgent`.
        attribute_channels: size of the node attributes; None: the type is the attribute.
        walk: how agents move: "attention" (drawn by their ranks), "greedy" (to the best-ranked
            neighbour) or "uniform".
        gamma: discount of the reward for each remaining move.

    Raises:
        ValueError: a size is below 1, gamma is not in (0, 1], or the walk is unknown.

    Source: Lee, Rossi, Kong, "Graph Classification using Structural Attention", KDD 2018, section
    3.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.models import GAM
        >>> two_pairs = Graph(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]))
        >>> model, y = GAM(num_types=3, num_classes=2), torch.tensor([0, 1])
        >>> out = model(two_pairs, torch.tensor([0, 1, 2, 1]), torch.tensor([0, 2, 4]))
        >>> out.logits.shape, out.probabilities.shape
        (torch.Size([2, 20, 2]), torch.Size([2, 2]))
        >>> model.loss(out, y).total().backward()
    """

    @classmethod
    @with_options_of(WalkModel.__init__, AllWalkOptions)
    def preset(
        cls, dataset: str, num_types: int, num_classes: int, **changes: Unpack[AllWalkOptions]
    ) -> Self:
        """The paper's settings: 20 agents, 12 steps, an LSTM of 156, step networks of 128 and 164.

        Args:
            dataset: any name: the settings are the same for all.
            num_types: number of node types.
            num_classes: number of classes.
            **changes: constructor arguments to set otherwise.
        """
        return cls(num_types, num_classes, **changes)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.classifier(hidden[:, :, -1])
        return logits


class GAMMemory(WalkModel):
    r"""GAM with shared memory: one prediction for a graph, from the histories of all agents.

    .. math::
        p_i = \sum_t u_{i,t} h_{i,t}, \quad u_{i,\cdot} = \mathrm{softmax}_t(w^\top h_{i,t}), \qquad
        m = \frac{1}{M} \sum_i p_i, \qquad P(y) = \mathrm{softmax}(W m + b)

    Arguments and errors are those of :class:`GAM`; the default of num_agents is 10.

    Source: Lee, Rossi, Kong, "Graph Classification using Structural Attention", KDD 2018, section
    3.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.models import GAMMemory
        >>> two_pairs = Graph(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]))
        >>> model = GAMMemory(num_types=3, num_classes=2)
        >>> model(two_pairs, torch.tensor([0, 1, 2, 1]), torch.tensor([0, 2, 4])).logits.shape
        torch.Size([2, 1, 2])
    """

    @with_options_of(WalkModel.__init__, WalkOptions)
    def __init__(
        self,
        num_types: int,
        num_classes: int,
        *,
        num_agents: int = 10,
        **options: Unpack[WalkOptions],
    ) -> None:
        """Creates the networks; see the class for the arguments."""
        super().__init__(num_types, num_classes, num_agents=num_agents, **options)
        self.remember = nn.Linear(self.agent.hidden_channels, 1)

    @classmethod
    @with_options_of(WalkModel.__init__, AllWalkOptions)
    def preset(
        cls, dataset: str, num_types: int, num_classes: int, **changes: Unpack[AllWalkOptions]
    ) -> Self:
        """The paper's settings: 10 agents, 12 steps, an LSTM of 156, step networks of 128 and 164.

        The paper chose 12 or 25 steps and 5 or 10 agents for each data set.

        Args:
            dataset: any name: the settings are the same for all.
            num_types: number of node types.
            num_classes: number of classes.
            **changes: constructor arguments to set otherwise.
        """
        return cls(num_types, num_classes, **changes)

    def _logits(self, hidden: Tensor) -> Tensor:
        weight = self.remember(hidden).softmax(dim=2)  # [G, M, T, 1]
        memory = (weight * hidden).sum(dim=2).mean(dim=1, keepdim=True)
        logits: Tensor = self.classifier(memory)
        return logits
