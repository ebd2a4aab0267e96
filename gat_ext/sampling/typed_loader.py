"""The batches of a NeighborLoader of nodes and edges of several types."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from gat_ext.sampling import checks
from gat_ext.sampling.features import gather
from gat_ext.sampling.loading import BatchMaker, Transform
from gat_ext.sampling.typed_batch import TypedBatch
from gat_ext.sampling.typed_sampler import TypedNeighborSampler, TypedSample
from gat_ext.sampling.typed_source import TypedSource, read_typed


class TypedNodeBatches(BatchMaker):
    """The batches of a NeighborLoader of several types."""

    source: TypedSource
    sampler: TypedNeighborSampler

    def __init__(
        self,
        input_type: str,
        input_nodes: Tensor,
        source: TypedSource,
        sampler: TypedNeighborSampler,
        form: str,
        transform: Transform | None,
    ) -> None:
        """Keeps the arguments, those of the loader."""
        super().__init__(source, sampler, form, transform)
        self.input_type, self.input_nodes = input_type, input_nodes

    def make(self, positions: Tensor, epoch: int) -> Any:
        """The batch of the input nodes at these positions."""
        source, kind = self.source, self.input_type
        seeds = self.input_nodes[positions]
        found = self.sampler.sample(kind, seeds, epoch=epoch)
        if self.form == "pyg":
            return hetero_data_of(source, found, positions)
        edge_attr = source.edge_attr
        return TypedBatch(
            x_dict={name: gather(x, found.n_id_dict[name]) for name, x in source.x.items()},
            edge_index_dict=found.edge_index_dict,
            edge_attr_dict={r: gather(rows, found.e_id_dict[r]) for r, rows in edge_attr.items()},
            y=gather(source.y[kind], seeds) if kind in source.y else None,
            n_id_dict=found.n_id_dict,
            e_id_dict=found.e_id_dict,
            input_type=kind,
            input_id=positions,
            batch_size=seeds.shape[0],
            num_sampled_nodes_dict=found.num_sampled_nodes_dict,
            num_sampled_edges_dict=found.num_sampled_edges_dict,
        )


def typed_batches(
    data: Any,
    num_neighbors: Any,
    input_nodes: Any,
    *,
    form: str,
    transform: Transform | None,
    replace: bool,
    subgraph_type: Any,
    weight_attr: str | None,
    edge_attr: Any,
    edge_weight: Any,
    seed: int,
    **unsupported: Any,
) -> TypedNodeBatches:
    """The batches of a NeighborLoader, whose arguments these are, checked.

    Arguments of times and disjoint trees are in ``unsupported``, and must have their defaults.
    """
    name = str(getattr(subgraph_type, "value", subgraph_type))
    checks.choice(name, ["directional"], "subgraph_type")
    for name, value in unsupported.items():
        if not (value is None or value is False or (isinstance(value, str) and value == "uniform")):
            raise ValueError(
                f"{name} was given, but data has several types; expected the default: trees of "
                "several types are neither disjoint nor directed by times"
            )
    source = read_typed(data, weight_attr, edge_attr, edge_weight)
    sampler = TypedNeighborSampler(
        source.graphs,
        num_neighbors,
        num_nodes=source.num_nodes,
        replace=replace,
        edge_weight=source.edge_weight,
        seed=seed,
    )
    for relation, rows in source.edge_attr.items():
        count = sampler.graphs[relation].col.shape[0]
        checks.rows(rows, count, f"edge_attr[{relation!r}]", "edge")
    source.graphs = sampler.graphs
    kind, nodes = _typed_seeds(input_nodes, source)
    source.use(kind)
    return TypedNodeBatches(kind, nodes, source, sampler, form, transform)


def _typed_seeds(given: Any, source: TypedSource) -> tuple[str, Tensor]:
    """(type, int64 [S]) of ``input_nodes``: a type, (type, nodes), or nodes of the target."""
    if isinstance(given, str):
        given = given, None
    pair = isinstance(given, (tuple, list)) and len(given) == 2 and isinstance(given[0], str)
    if not pair:
        if source.target is None:
            raise ValueError(
                f"input_nodes is {'None' if given is None else f'a {type(given).__name__}'}, but "
                "data has several types; expected a type, such as 'paper', or (type, nodes), one "
                f"of {', '.join(map(repr, source.num_nodes))}"
            )
        given = source.target, given
    kind, nodes = given
    checks.choice(kind, list(source.num_nodes), "the type of input_nodes")
    return kind, checks.input_nodes(nodes, source.num_nodes[kind])


def hetero_data_of(source: TypedSource, found: TypedSample, input_id: Tensor) -> Any:
    """A HeteroData with the attributes of nodes and edges that PyG's loaders set.

    All attributes of nodes and edges of the source's HeteroData are gathered; others are copied.

    Raises:
        ImportError: PyTorch Geometric is missing.
    """
    from torch_geometric.data import HeteroData

    data = HeteroData() if source.pyg is None else copy.copy(source.pyg)
    for kind, n_id in found.n_id_dict.items():
        store, parts = data[kind], {"x": source.x.get(kind), "y": source.y.get(kind)}
        if source.pyg is not None:
            given = source.pyg[kind]
            parts = {name: v for name, v in given.items() if given.is_node_attr(name)}
        _fill(store, parts, n_id)
        store.num_nodes, store.n_id = n_id.shape[0], n_id
        store.num_sampled_nodes = found.num_sampled_nodes_dict[kind]
    for relation, e_id in found.e_id_dict.items():
        store, parts = data[relation], {"edge_attr": source.edge_attr.get(relation)}
        if source.pyg is not None:
            given = source.pyg[relation]
            parts = {name: v for name, v in given.items() if given.is_edge_attr(name)}
            for name in ("edge_index", "adj_t"):
                parts.pop(name, None)
                store.pop(name, None)
        _fill(store, parts, e_id)
        store.edge_index, store.e_id = found.edge_index_dict[relation], e_id
        store.num_sampled_edges = found.num_sampled_edges_dict[relation]
    data[found.input_type].input_id = input_id
    data[found.input_type].batch_size = found.batch_size
    return data


def _fill(store: Any, parts: dict[str, Any], index: Tensor) -> None:
    for name, rows in parts.items():
        if isinstance(rows, Tensor):
            store[name] = gather(rows, index)
