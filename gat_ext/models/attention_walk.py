"""AttentionWalk."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.functional import checks, random_walk
from gat_ext.graph import Graph
from gat_ext.models.loading import Loadable
from gat_ext.nn.arguments import check_size
from gat_ext.nn.walk_agent import MOST_STEPS

CONTEXTS = ("learned", "uniform")


class AttentionWalkLoss(NamedTuple):
    """The three parts of the loss, each a scalar.

    Attributes:
        positive: loss of pairs that walks connect.
        negative: loss of pairs without an edge.
        penalty: L2 penalty on the logits of the context distribution.
    """

    positive: Tensor
    negative: Tensor
    penalty: Tensor

    def total(self) -> Tensor:
        """Their sum."""
        return self.positive + self.negative + self.penalty


class AttentionWalk(Loadable, nn.Module):
    r"""Node embeddings with learned attention to the lengths of random walks.

    Node i has two vectors, :math:`l_i` as the start of a walk and :math:`r_i` as a node on a walk;
    its embedding is their concatenation. Walks of k steps have the weight :math:`q_k` of the
    context distribution :math:`q = \mathrm{softmax}(\theta)` over 1 to C, which is learned, too.
    With the transition matrix T of the random walk and :math:`n` walks from each node, the expected
    number of visits to j from i, and the negative log graph likelihood to minimise, are

    .. math::
        D = n \sum_{k=1}^{C} q_k T^k, \qquad
        \frac{1}{nN} \sum_{i,j} \big( -D_{ij} \log \sigma(l_i^\top r_j)
            - [A_{ij} = 0] \log (1 - \sigma(l_i^\top r_j)) \big) + \beta \lVert \theta \rVert^2

    The paper's sum is divided by nN, so that :math:`\beta` has the same effect on graphs of any
    size. No N × N matrix is allocated: :meth:`loss` estimates the first sum from random walks and
    the second from the pairs of two random sets of nodes, both without bias. The weights
    :math:`q_k` multiply the steps of a walk and are not sampled, so their gradient is unbiased too.

    Walks move as in :func:`gat_ext.functional.random_walk`, from a node to the source of one of its
    in-edges; for the other direction of a directed graph, pass ``graph.reverse()``. A walk at a
    node without neighbours stays there.

    Args:
        num_nodes: N.
        embedding_channels: size of an embedding, an even number: half for each vector.
        window: C, the length of the longest walk.
        num_walks: n, the weight of pairs on walks relative to pairs without an edge.
        beta: weight of the penalty. With 0, q degenerates to a single length, because the objective
            is linear in q.
        context: ``"learned"``, or ``"uniform"`` for :math:`q_k = 1 / C`, fixed.

    Shapes:
        returns the embeddings, [N, embedding_channels].

    Raises:
        ValueError: a size is below 1, embedding_channels is odd, num_walks is not positive and
            finite, beta is negative or not finite, or the context is unknown.

    Cost: a step of B walks and S × S pairs takes O((B C + S²) embedding_channels + N) time.

    Source: Abu-El-Haija, Perozzi, Al-Rfou, Alemi, "Watch Your Step: Learning Node Embeddings via
    Graph Attention", NeurIPS 2018, section 3.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.models import AttentionWalk
        >>> ring = Graph(torch.tensor([[1, 2, 3, 0, 0, 1, 2, 3], [0, 1, 2, 3, 1, 2, 3, 0]]))
        >>> model = AttentionWalk(ring.num_nodes, embedding_channels=6, window=3)
        >>> model.loss(ring).total().backward()
        >>> model().shape, model.context
        (torch.Size([4, 6]), tensor([0.3333, 0.3333, 0.3333]))
    """

    theta: Tensor

    def __init__(
        self,
        num_nodes: int,
        embedding_channels: int = 128,
        window: int = 10,
        *,
        num_walks: float = 80.0,
        beta: float = 0.5,
        context: str = "learned",
    ) -> None:
        """Draws the embeddings; see the class for the arguments."""
        super().__init__()
        sizes = {"num_nodes": num_nodes, "embedding_channels": embedding_channels, "window": window}
        for name, size in sizes.items():
            check_size(name, size, MOST_STEPS if name == "window" else None)
        if embedding_channels % 2:
            raise ValueError(
                f"embedding_channels is {embedding_channels}; expected an even number, half for "
                "each of a node's two vectors"
            )
        if not checks.number(num_walks, "num_walks") > 0:
            raise ValueError(f"num_walks is {num_walks}; expected a positive number")
        if not checks.number(beta, "beta") >= 0:
            raise ValueError(f"beta is {beta}; expected 0 or a positive number")
        checks.choice(context, CONTEXTS, "context")
        self.num_nodes, self.window = num_nodes, window
        self.num_walks, self.beta = num_walks, beta
        self.left = nn.Parameter(torch.empty(num_nodes, embedding_channels // 2))
        self.right = nn.Parameter(torch.empty(num_nodes, embedding_channels // 2))
        theta = torch.empty(window)
        if context == "learned":
            self.theta = nn.Parameter(theta)
        else:
            self.register_buffer("theta", theta)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all embeddings from N(0, 0.3²) and resets the context distribution to uniform."""
        nn.init.normal_(self.left, std=0.3)
        nn.init.normal_(self.right, std=0.3)
        nn.init.zeros_(self.theta)

    @property
    def context(self) -> Tensor:
        """The context distribution q over 1 to C steps, [C], detached."""
        return self.theta.detach().softmax(dim=0)

    def forward(self) -> Tensor:
        """The embeddings, [N, embedding_channels]."""
        return torch.cat([self.left, self.right], dim=1)

    def loss(
        self,
        graph: Graph,
        start: Tensor | None = None,
        *,
        num_pairs: int = 512,
        seed: Tensor | None = None,
    ) -> AttentionWalkLoss:
        """An unbiased estimate of the objective.

        Args:
            graph: of N nodes.
            start: int64 [B], start nodes of the walks, drawn uniformly; None: every node once.
            num_pairs: S: pairs without an edge are taken from S random starts × S random ends; at
                most N of each.
            seed: int64 tensor of one element, which determines the walks; None draws one from
                torch's generator. The random sets of pairs always use torch's generator.

        Raises:
            ValueError: the graph has another number of nodes, or num_pairs is below 1.
            TypeError, IndexError: as :func:`gat_ext.functional.random_walk` for ``start``.
        """
        checks.is_whole(graph, "AttentionWalk")
        if graph.num_nodes != self.num_nodes:
            raise ValueError(
                f"the graph has {graph.num_nodes} nodes; expected the {self.num_nodes} nodes that "
                "this model embeds"
            )
        check_size("num_pairs", num_pairs)
        if start is None:
            start = torch.arange(self.num_nodes, device=graph.device)
        walks = random_walk(graph, start, self.window, seed=seed)
        starts, ends = (
            torch.randperm(self.num_nodes, device=graph.device)[:num_pairs] for _ in range(2)
        )
        penalty = self.beta * self.theta.square().sum()
        return AttentionWalkLoss(self.positive(walks), self.negative(graph, starts, ends), penalty)

    def positive(self, walks: Tensor) -> Tensor:
        """The loss of pairs on walks, estimated as the mean over given walks, int64 [B, C + 1].

        Unbiased for walks from uniform starts.
        """
        left = F.embedding(walks[:, :1], self.left)
        right = F.embedding(walks[:, 1:], self.right)
        met = F.logsigmoid((left * right).sum(dim=2))
        return -(met @ self.theta.softmax(dim=0)).mean()

    def negative(self, graph: Graph, starts: Tensor, ends: Tensor) -> Tensor:
        """The loss of pairs without an edge, over ``starts`` × ``ends``, distinct nodes [S]."""
        scores = self.left.index_select(0, starts) @ self.right.index_select(0, ends).t()
        cost = F.softplus(scores).masked_fill(_joined(graph, starts, ends), 0)
        return cost.mean() * (self.num_nodes / self.num_walks)

    def extra_repr(self) -> str:
        """The sizes."""
        kind = "learned" if isinstance(self.theta, nn.Parameter) else "uniform"
        return (
            f"{self.num_nodes}, {2 * self.left.shape[1]}, window={self.window}, "
            f"num_walks={self.num_walks}, beta={self.beta}, context={kind!r}"
        )


def _joined(graph: Graph, starts: Tensor, ends: Tensor) -> Tensor:
    """True where an edge leads from a start to an end, bool [S, T]."""
    first = graph.rowptr.index_select(0, starts)
    count = graph.rowptr.index_select(0, starts + 1) - first
    row = torch.repeat_interleave(count)
    before = count.cumsum(0) - count
    edge = torch.arange(len(row), device=row.device) + (first - before).index_select(0, row)
    place = starts.new_full((graph.num_nodes,), -1)
    place[ends] = torch.arange(len(ends), device=ends.device)
    column = place.index_select(0, graph.col.index_select(0, edge))
    among = column >= 0
    joined = torch.zeros(len(starts), len(ends), dtype=torch.bool, device=starts.device)
    joined[row[among], column[among]] = True
    return joined
