"""DistGraph: the part of a graph that this process holds, with its neighbours' rows in reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gat_ext.distributed import modes, norms, reduce
from gat_ext.distributed.exchange import Exchange, Traffic, fetch
from gat_ext.distributed.failures import naming_the_dead
from gat_ext.distributed.part import Part
from gat_ext.distributed.pieces import Piece
from gat_ext.distributed.stack import stacked_part
from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.ops.numbering import Numbering


class DistGraph(ShardedGraph):
    """The part of a graph that this process holds: the edges into its nodes.

    Layers, models and functions take it where they take a Graph. Node tensors have a row for each
    own node, edge tensors one for each own edge, in the order of ``part.nodes`` and ``part.edges``;
    results have a row for each own node. Every process of the group makes the same calls, because
    each of them sends rows that others read. Results and gradients are those of the whole graph to
    rounding, and dropout draws the same numbers if all processes have the same seed.

    Args:
        part: this process's part; see :func:`gat_ext.distributed.partition`.
        group: the processes of torch.distributed, one for each part; None: all of them.
        mode: how attention reads the rows of other processes. ``"overlap"`` attends over the edges
            among own nodes while rows are on their way, then over the rest, and merges both
            exactly. ``"sequential"`` fetches the rows of one process after the other, in forward
            and backward, so that memory does not grow with the number of edges between parts.
            ``"heads"`` gives each process all nodes and edges for some of the heads, for small
            graphs of many heads. ``"gather"`` fetches all rows first. All compute the same.
            Operators other than attention, and attention with top_k, edge_mask or returned weights,
            always gather; HGTConv does in place of ``"heads"``.

    Raises:
        TypeError: ``part`` is not a Part.
        ValueError: the group does not have a process for each part, this process's rank is not the
            part's, parts do not belong together, or the mode is unknown.
        RuntimeError: there are several parts, and torch.distributed is not initialised.

    Example:
        >>> import torch
        >>> from gat_ext.distributed import DistGraph, make_part
        >>> from gat_ext.nn import GATConv
        >>> edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> graph = DistGraph(make_part(edges, torch.zeros(3, dtype=torch.int64), rank=0, parts=1))
        >>> GATConv(4, 2)(torch.randn(graph.num_src, 4), graph).shape
        torch.Size([3, 2])
    """

    def __init__(self, part: Part, group: Any = None, *, mode: str = "overlap") -> None:
        """Checks the parts of all processes; see the class for the arguments."""
        if not isinstance(part, Part):
            raise TypeError(f"part is a {type(part).__name__}; expected a gat_ext.distributed.Part")
        checks.choice(mode, modes.MODES, "mode")
        self.part, self.mode = part, mode
        self.group = _checked_group(part, group)
        self._set(part, Exchange(part.send, part.send_sizes, part.recv_sizes, 0, self.group))

    def _set(self, part: Part, exchange: Exchange) -> None:
        self.part = part
        self.src_numbering = Numbering(part.src_nodes, part.num_src)
        self.dst_numbering = Numbering(part.dst_nodes, part.num_dst)
        self.exchange = dataclasses.replace(exchange, num_rows=part.num_own_src)
        self._pieces: dict[Any, Any] = {}

    def _derived(self, part: Part, exchange: Exchange | None = None) -> DistGraph:
        """A graph of the same group, whose parts are known to belong together."""
        graph = DistGraph.__new__(DistGraph)
        graph.group, graph.mode = self.group, self.mode
        graph._set(part, self.exchange if exchange is None else exchange)
        return graph

    # ---- of the graph

    @property
    def num_edges(self) -> int:
        """Number of edges into own destinations."""
        return self.part.num_own_edges

    @property
    def edge_numbering(self) -> Numbering:
        """The numbers of the edges in the whole graph."""
        return Numbering(self.part.edges, self.part.num_edges)

    @property
    def device(self) -> torch.device:
        """The device of the edges."""
        return self.part.edge_index.device

    @property
    def traffic(self) -> Traffic:
        """Bytes that this process sent, also through graphs derived from this one."""
        return self.exchange.traffic

    @cached_property
    def local(self) -> Graph:
        """The edges into own destinations, from own sources and then those of the halo."""
        part = self.part
        num_src = part.num_own_src + part.num_halo
        graph = Graph(part.edge_index, num_src=num_src, num_dst=part.num_own_dst)
        return graph._numbered(part.edges)

    @property
    def global_edge_index(self) -> Tensor:
        """int64 [2, num_edges], in the numbers of the whole graph."""
        part = self.part
        sources = torch.cat([part.src_nodes, part.halo])
        return torch.stack([sources[part.edge_index[0]], part.dst_nodes[part.edge_index[1]]])

    @property
    def nbytes(self) -> int:
        """Bytes of the part and of the graphs built from it so far."""
        graphs = [p.graph for p in self._pieces.values() if isinstance(p, Piece)]
        if "local" in vars(self):
            graphs.append(self.local)
        return self.part.nbytes + sum(graph.nbytes for graph in graphs)

    def to(self, device: torch.device | str | int) -> DistGraph:
        """This part on a device."""
        part = self.part.to(device)
        if part is self.part:
            return self
        return self._derived(part, dataclasses.replace(self.exchange, send=part.send))

    def __copy__(self) -> DistGraph:
        """A graph of the same part and processes; nothing modifies a part."""
        return self._derived(self.part)

    def __deepcopy__(self, memo: dict[int, Any]) -> DistGraph:
        """As copy.copy: a process group cannot be copied."""
        return self._derived(self.part)

    def __reduce__(self) -> NoReturn:
        """Raises TypeError: a process group cannot be pickled."""
        raise TypeError(
            f"{self!r} cannot be pickled, because it belongs to the processes of this program; "
            "pickle its .part, or write all parts with gat_ext.distributed.save, and construct a "
            "DistGraph in each process"
        )

    def __getattr__(self, name: str) -> NoReturn:
        """Raises AttributeError, for attributes of a Graph with the reason."""
        reason = ""
        if hasattr(Graph, name):
            reason = (
                ", which a Graph has: this process knows its own part of the edges only; call it "
                "on the whole Graph before the partition, or on .local, a Graph of the own edges"
            )
        raise AttributeError(f"a DistGraph has no {name}{reason}")

    def __repr__(self) -> str:
        """The counts of this process."""
        part = self.part
        return (
            f"DistGraph(rank={part.rank}, parts={part.parts}, num_src={self.num_src}, "
            f"num_dst={self.num_dst}, num_edges={self.num_edges}, num_halo={part.num_halo}, "
            f"mode={self.mode!r}, device='{self.device}')"
        )

    # ---- pieces of the edges

    def own_piece(self) -> Piece:
        """The edges among own nodes."""
        part = self.part
        edges = slice(part.num_halo_edges, part.num_own_edges)
        return self._piece("own", edges, None)

    def halo_piece(self) -> Piece:
        """The edges from the halo."""
        part = self.part
        return self._piece("halo", slice(0, part.num_halo_edges), slice(0, part.num_halo))

    def piece_of(self, owner: int) -> Piece:
        """The edges from one process's rows."""
        part = self.part
        first, row = sum(part.halo_edges[:owner]), sum(part.recv_sizes[:owner])
        edges = slice(first, first + part.halo_edges[owner])
        return self._piece(owner, edges, slice(row, row + part.recv_sizes[owner]))

    def _piece(self, key: Any, edges: slice, halo: slice | None) -> Piece:
        if key not in self._pieces:
            part = self.part
            src, dst = part.edge_index[:, edges]
            numbers = part.edges[edges]
            if halo is None:
                num_src, num_dst, rows = part.num_own_src, part.num_own_dst, None
            else:
                num_src, num_dst = halo.stop - halo.start, part.num_own_dst
                src = src - (part.num_own_src + halo.start)
                rows, place = dst.unique(return_inverse=True)
                if 2 * rows.shape[0] > num_dst:  # rows of their own would be copies of most
                    rows = None
                else:
                    dst, num_dst = place, rows.shape[0]
            graph = Graph(torch.stack([src, dst]), num_src=num_src, num_dst=num_dst)
            graph = graph._numbered(numbers)
            self._pieces[key] = Piece(graph, rows, edges, halo)
        found: Piece = self._pieces[key]
        return found

    # ---- what layers and functions call

    def extend(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors of own sources, then of the halo; see the base class."""
        halo = fetch(self.exchange, tensors)
        return tuple(torch.cat([t, h]) for t, h in zip(tensors, halo, strict=True))

    def attend(self, inputs: Any, options: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(out, weights, lse) of edge_attention; see the base class."""
        return modes.attend(self, inputs, options)

    def replace_self_loops(self) -> tuple[DistGraph, Tensor | None]:
        """See the base class."""
        part = self.part
        if part.is_bipartite:
            raise ValueError(
                f"{self!r} has two sets of nodes; self-loops need one set: pass "
                "add_self_loops=False to the layer"
            )
        src, dst = part.edge_index
        is_loop = src == dst
        kept = (~is_loop).nonzero().flatten() if bool(is_loop.any()) else None
        plain = part.edges if part.plain_edges is None else part.plain_edges
        edge_index, numbers = part.edge_index, plain
        if kept is not None:
            edge_index, numbers = edge_index[:, kept], numbers[kept]
        loops = torch.arange(part.num_own_dst, device=src.device).expand(2, -1)
        numbers = torch.cat([numbers, part.num_plain + part.dst_nodes])
        looped = dataclasses.replace(
            part,
            edge_index=torch.cat([edge_index, loops], dim=1),
            edges=numbers,
            plain_edges=None,
            num_edges=part.num_plain + part.num_dst,
        )
        return self._derived(looped), kept

    def of_relations(self, edge_type: Tensor, num_relations: int, within: bool) -> DistGraph:
        """See the base class."""
        part, count = self.part, num_relations
        src, dst = part.edge_index
        each = torch.arange(count, device=src.device)

        def spread(nodes: Tensor) -> Tensor:
            return (nodes.unsqueeze(1) * count + each).flatten()

        dst_nodes, num_dst = part.dst_nodes, part.num_dst
        if within:
            dst, dst_nodes, num_dst = dst * count + edge_type, spread(dst_nodes), num_dst * count
        send = spread(part.send)
        spread_part = dataclasses.replace(
            part,
            src_nodes=spread(part.src_nodes),
            dst_nodes=dst_nodes,
            halo=spread(part.halo),
            recv_sizes=tuple(size * count for size in part.recv_sizes),
            send=send,
            send_sizes=tuple(size * count for size in part.send_sizes),
            edge_index=torch.stack([src * count + edge_type, dst]),
            num_src=part.num_src * count,
            num_dst=num_dst,
        )
        sizes = spread_part.send_sizes, spread_part.recv_sizes
        exchange = Exchange(send, *sizes, 0, self.group, self.traffic)
        return self._derived(spread_part, exchange)

    def stack(
        self, graphs: Sequence[Any], first_dst: Sequence[int], num_dst: int
    ) -> tuple[DistGraph, Tensor]:
        """See the base class."""
        part, order = stacked_part([graph.part for graph in graphs], first_dst, num_dst)
        sizes = part.send_sizes, part.recv_sizes
        exchange = Exchange(part.send, *sizes, 0, self.group, self.traffic)
        graph = self._derived(part, exchange)
        graph.mode = "gather" if self.mode == "heads" else self.mode
        return graph, order

    def mean(self, x: Tensor) -> Tensor:
        """The mean of the rows of all processes; see the base class."""
        return reduce.mean(x, self.group)

    def normalise(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Applies a normalisation with statistics of all processes; see the base class."""
        return norms.normalise(norm, x, self.group)


def _checked_group(part: Part, group: Any) -> Any:
    """The group, or None if this is the only process; raises unless all parts belong together."""
    if not (dist.is_available() and dist.is_initialized()):
        if part.parts == 1:
            return None
        raise RuntimeError(
            f"{part!r} is one of {part.parts} parts, but torch.distributed is not initialised: "
            "start the program with torchrun and call torch.distributed.init_process_group() first"
        )
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    mine = (part.identity, part.rank, part.parts, part.recv_sizes, part.send_sizes)
    every: list[Any] = [None] * world
    with naming_the_dead(group):
        dist.all_gather_object(every, mine, group=group)
    problem = _mismatch(every, world)
    if problem:  # the same on all processes, so that none of them waits for another
        raise ValueError(f"rank {rank} has {part!r}, {problem}")
    return dist.group.WORLD if group is None else group


def _mismatch(every: list[Any], world: int) -> str | None:
    """What is wrong with the parts of all processes, or None."""
    for rank, (identity, number, parts, *_) in enumerate(every):
        if parts != world:
            return (
                f"and rank {rank} one of {parts} parts, but the group has {world} processes; "
                "expected a process for each part: change --nproc-per-node, or partition again"
            )
        if number != rank:
            return f"but rank {rank} has part {number}; expected part {rank}"
        if identity != every[0][0]:
            return (
                f"but the parts of ranks 0 and {rank} are of two partitions; expected parts that "
                "were made together"
            )
    for rank, (_, _, _, received, _) in enumerate(every):
        sent = tuple(row[4][rank] for row in every)
        if received != sent:
            return f"but rank {rank} expects {received} rows from the others, which send {sent}"
    return None
