"""Blocks in place of a graph: one bipartite graph for each attention layer of a model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.nn.features import SparseFeatures


def are_blocks(graph: Any) -> bool:
    """True for a list or tuple, whose elements are not checked.

    Derived classes may be a form of edges of their own.
    """
    return type(graph) in (list, tuple)


def check_blocks(blocks: Sequence[Any], x: Any, num_layers: int) -> tuple[Graph, ...]:
    """The blocks of a call; raises unless there is one for each layer and sizes match.

    Args:
        blocks: graphs, outermost first; the first nodes of each are those of the next.
        x: [N', C], features of the sources of the first block.
        num_layers: number of attention layers.

    Raises:
        TypeError: a block is not a Graph, or x is sparse.
        ValueError: the number of blocks or a size does not match.
    """
    for position, block in enumerate(blocks):
        if not isinstance(block, Graph):
            raise TypeError(
                f"blocks[{position}] is a {type(block).__name__}; expected a gat_ext.Graph for "
                "each attention layer, as gat_ext.sampling.NeighborLoader yields them"
            )
    if len(blocks) != num_layers:
        raise ValueError(
            f"got {len(blocks)} blocks; expected {num_layers}, one for each attention layer: give "
            f"the loader {num_layers} fan-outs"
        )
    if isinstance(x, SparseFeatures) or not isinstance(x, Tensor):
        raise TypeError(
            f"x is a {type(x).__name__}; a model expects a dense tensor [N, C] with blocks"
        )
    if x.dim() < 2 or x.shape[-2] != blocks[0].num_src:
        raise ValueError(
            f"x has shape {list(x.shape)}; expected [{blocks[0].num_src}, C], a row for each "
            "source of the first block"
        )
    for position, (outer, inner) in enumerate(itertools.pairwise(blocks)):
        if outer.num_dst != inner.num_src:
            raise ValueError(
                f"blocks[{position}] has {outer.num_dst} destinations, but blocks[{position + 1}] "
                f"has {inner.num_src} sources; expected equal numbers, the outermost block first"
            )
    return tuple(blocks)


def check_block_features(edge_attr: Any, num_layers: int) -> tuple[Tensor | None, ...]:
    """The edge features of each block.

    Raises:
        TypeError: edge_attr is a tensor.
        ValueError: their number is not that of the layers.
    """
    if edge_attr is None:
        return (None,) * num_layers
    if not isinstance(edge_attr, (list, tuple)):
        raise TypeError(
            f"edge_attr is a {type(edge_attr).__name__}; expected a sequence of tensors with "
            "blocks, one for each"
        )
    if len(edge_attr) != num_layers:
        raise ValueError(
            f"edge_attr has {len(edge_attr)} tensors; expected {num_layers}, one for each block"
        )
    return tuple(edge_attr)


def block_input(x: Tensor, block: Graph) -> tuple[Tensor, Tensor]:
    """(x_src, x_dst) of a layer: destinations are the first sources."""
    return x, x.narrow(-2, 0, block.num_dst)
