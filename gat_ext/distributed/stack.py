"""The parts of several relations as one part, whose sources are the rows of all relations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from gat_ext.distributed.part import Part


def stacked_part(
    parts: Sequence[Part], first_dst: Sequence[int], num_dst: int
) -> tuple[Part, Tensor]:
    """One part of several, and the order of its edges.

    Its sources are the own sources of the first relation, of the second, and so on; its halo has,
    for each owner, the halo rows of the first relation, of the second, and so on.

    Args:
        parts: of the relations, of one rank.
        first_dst: where the destinations of each relation begin.
        num_dst: number of own destinations.

    Returns:
        The part, whose nodes are numbered among those of this process, and int64 [E]: each of its
        edges among those of the relations, one after the other.
    """
    count, rank = parts[0].parts, parts[0].rank
    device = parts[0].edge_index.device
    first_src = list(accumulate((p.num_own_src for p in parts), initial=0))
    num_src = first_src.pop()
    recv = [[p.recv_sizes[owner] for p in parts] for owner in range(count)]
    first_halo = _starts(recv, num_src)
    sources, groups, dst = [], [], []
    for number, part in enumerate(parts):
        own = part.edge_index[0] < part.num_own_src
        halo = torch.cat(
            [
                torch.arange(size, device=device) + first_halo[owner][number]
                for owner, size in enumerate(part.recv_sizes)
            ]
        )
        place = torch.cat([torch.arange(part.num_own_src, device=device) + first_src[number], halo])
        sources.append(place[part.edge_index[0]])
        owners = torch.arange(count, device=device)
        group = owners.repeat_interleave(torch.tensor(part.halo_edges, device=device))
        groups.append(torch.cat([group, group.new_full((int(own.sum()),), count)]))
        dst.append(part.edge_index[1] + first_dst[number])
    order = torch.cat(groups).argsort(stable=True)
    edge_index = torch.stack([torch.cat(sources), torch.cat(dst)])[:, order]
    send = [
        part.send.split(list(part.send_sizes))[receiver] + first_src[number]
        for receiver in range(count)
        for number, part in enumerate(parts)
    ]
    stacked = Part(
        rank=rank,
        parts=count,
        src_nodes=torch.arange(num_src, device=device),
        dst_nodes=torch.arange(num_dst, device=device),
        halo=torch.arange(sum(map(sum, recv)), device=device),
        recv_sizes=tuple(map(sum, recv)),
        send=torch.cat(send),
        send_sizes=tuple(sum(p.send_sizes[r] for p in parts) for r in range(count)),
        edge_index=edge_index,
        halo_edges=tuple(sum(p.halo_edges[owner] for p in parts) for owner in range(count)),
        edges=order,
        num_edges=order.shape[0],
        num_src=num_src,
        num_dst=num_dst,
        plain_edges=None,
        num_plain=order.shape[0],
        identity=parts[0].identity,
    )
    return stacked, order


def _starts(sizes: list[list[int]], first: int) -> list[list[int]]:
    """Where each block begins, if the blocks of these sizes follow one another from ``first``."""
    starts = []
    for row in sizes:
        bounds = list(accumulate(row, initial=first))
        first = bounds.pop()
        starts.append(bounds)
    return starts
