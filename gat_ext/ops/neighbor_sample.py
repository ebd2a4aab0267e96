"""The fake kernel of the operator that samples neighbourhoods.

``neighbor_sample`` is for the CPU only and has no gradient. Its results, for L layers:

- ``n_id`` int64 [N'], the nodes of the batch, the seeds first;
- ``tree`` int64 [N'], the seed of each node, by its position; [0] unless trees are disjoint;
- ``rowptr_of_layers``, ``col_of_layers`` and ``edge_id_of_layers``, L tensors each, the seeds'
  layer first: int64 [M + 1], int32 [E'] (positions in ``n_id``) and int64 [E'] (the caller's
  edges);
- ``num_nodes`` int64 [L + 1], the number of nodes before each layer, and at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Sampled = tuple[Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor], Tensor]


@torch.library.register_fake("gat_ext::neighbor_sample")
def _(
    rowptr: Tensor,
    col: Tensor,
    edge_id: Tensor | None,
    seeds: Tensor,
    fanouts: Sequence[int],
    weight: Tensor | None,
    edge_time: Tensor | None,
    node_time: Tensor | None,
    seed_time: Tensor | None,
    replace: bool,
    latest: bool,
    disjoint: bool,
    frontier: bool,
    seed: int,
    epoch: int,
) -> Sampled:
    context = torch.library.get_ctx()

    def vector(dtype: torch.dtype = torch.int64) -> Tensor:
        return seeds.new_empty((context.new_dynamic_size(),), dtype=dtype)

    n_id = vector()
    tree = torch.empty_like(n_id) if disjoint else seeds.new_empty(0)
    rowptrs = [vector() for _ in fanouts]
    cols = [vector(torch.int32) for _ in fanouts]
    edge_ids = [torch.empty_like(layer, dtype=torch.int64) for layer in cols]
    return n_id, tree, rowptrs, cols, edge_ids, seeds.new_empty(len(fanouts) + 1)
