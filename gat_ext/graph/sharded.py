"""ShardedGraph: a graph of which each process holds the edges into some of the nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.graph.graph import Graph
from gat_ext.ops.numbering import Numbering


def rows_of(graph: Any) -> Numbering | None:
    """Which rows of the features of all sources a ShardedGraph has; None for other graphs."""
    return graph.src_numbering if isinstance(graph, ShardedGraph) else None


class ShardedGraph(ABC):
    """What functions and layers read of a :class:`gat_ext.distributed.DistGraph`.

    It is a :class:`gat_ext.graph.protocol.GraphLike` of the nodes that this process owns, so that
    node tensors have a row for each of them. Edges may come from nodes of other processes, whose
    rows :meth:`extend` fetches.

    Attributes:
        src_numbering: the numbers of the own sources in the whole graph, ascending.
        dst_numbering: those of the own destinations.
    """

    src_numbering: Numbering
    dst_numbering: Numbering

    @property
    def num_src(self) -> int:
        """Number of own sources."""
        return self.src_numbering.numbers.shape[0]

    @property
    def num_dst(self) -> int:
        """Number of own destinations."""
        return self.dst_numbering.numbers.shape[0]

    @property
    @abstractmethod
    def num_edges(self) -> int:
        """Number of edges into own destinations."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the edges."""

    @property
    @abstractmethod
    def edge_numbering(self) -> Numbering:
        """The numbers of the edges in the whole graph."""

    @property
    @abstractmethod
    def local(self) -> Graph:
        """The edges into own destinations, from own sources and then those of other processes."""

    def _held_tensors(self) -> tuple[Any, ...]:
        return self.local, self.src_numbering.numbers, self.dst_numbering.numbers

    @property
    def edge_index(self) -> Tensor:
        """int64 [2, num_edges], in the numbers of :attr:`local`."""
        return self.local.edge_index

    @property
    @abstractmethod
    def global_edge_index(self) -> Tensor:
        """int64 [2, num_edges], in the numbers of the whole graph."""

    @abstractmethod
    def extend(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors of the sources of :attr:`local`, from those of the own sources; differentiable.

        Every process of the group calls it, with tensors of the same shapes except for the rows.
        """

    @abstractmethod
    def attend(self, inputs: Any, options: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(out, weights, lse) of edge_attention.

        Args:
            inputs: checked ``Inputs``.
            options: ``AttentionOptions`` of :mod:`gat_ext.functional.fused`.
        """

    @abstractmethod
    def replace_self_loops(self) -> tuple[ShardedGraph, Tensor | None]:
        """(the graph with a self-loop for every node, last; positions of the kept edges or None).

        Raises:
            ValueError: sources and destinations are two sets of nodes.
        """

    @abstractmethod
    def of_relations(self, edge_type: Tensor, num_relations: int, within: bool) -> ShardedGraph:
        """The graph from (source, relation) to destination, as ``nn.relations.relation_graph``."""

    @abstractmethod
    def stack(
        self, graphs: Sequence[Any], first_dst: Sequence[int], num_dst: int
    ) -> tuple[ShardedGraph, Tensor]:
        """One graph of several relations, from the rows of all of them.

        Args:
            graphs: the relations, this one first.
            first_dst: where the own destinations of each relation begin.
            num_dst: number of own destinations.

        Returns:
            The graph, and int64 [E]: each of its edges among those of the relations, one after the
            other.
        """

    @abstractmethod
    def mean(self, x: Tensor) -> Tensor:
        """The mean of the rows of all processes; differentiable."""

    @abstractmethod
    def normalise(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Applies a normalisation to rows of own nodes, with statistics of all processes."""
