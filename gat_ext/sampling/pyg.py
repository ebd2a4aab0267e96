"""Mini-batches as objects of PyTorch Geometric."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from gat_ext.sampling.features import gather
from gat_ext.sampling.sampler import Subgraph
from gat_ext.sampling.source import Source


def data_of(source: Source, found: Subgraph) -> Any:
    """A Data with the attributes of nodes and edges that PyG's loaders set.

    All attributes of nodes and edges of the source's Data are gathered; others are copied.

    Raises:
        ImportError: PyTorch Geometric is missing.
    """
    from torch_geometric.data import Data

    if source.pyg is None:
        data = Data()
        parts = {"x": source.x, "y": source.y}
        for name, tensor in parts.items():
            if tensor is not None:
                data[name] = gather(tensor, found.n_id)
        if source.edge_attr is not None:
            data.edge_attr = gather(source.edge_attr, found.e_id)
    else:
        data = copy.copy(source.pyg)
        for name, value in source.pyg.to_dict().items():
            if name in ("edge_index", "adj_t", "num_nodes"):
                del data[name]
            elif source.pyg.is_node_attr(name) and isinstance(value, Tensor):
                data[name] = gather(value, found.n_id)
            elif source.pyg.is_edge_attr(name) and isinstance(value, Tensor):
                data[name] = gather(value, found.e_id)
    data.edge_index = found.edge_index
    data.num_nodes = found.n_id.shape[0]
    data.n_id, data.e_id, data.batch = found.n_id, found.e_id, found.batch
    data.num_sampled_nodes = found.num_sampled_nodes
    data.num_sampled_edges = found.num_sampled_edges
    return data
