"""TypedBatch: what a loader yields for models of nodes and edges of several types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gat_ext.sampling.batch import Movable
from gat_ext.sampling.typed_checks import Relation


@dataclass(frozen=True, repr=False)
class TypedBatch(Movable):
    """A sampled mini-batch of nodes of one type: features by type, and one graph by relation.

    Names are PyG's. A model is called with ``model(batch.x_dict, batch.edge_index_dict)``; the
    first ``batch_size`` rows of its result for the type of the seeds are those of the seeds. These
    have all their sampled neighbours in a model of as many layers as there were hops; later rows
    have fewer, and are intermediate results.

    Attributes:
        x_dict: for each type with features, [N'_t, ...]; [0, ...] for types that were not reached.
        edge_index_dict: for each relation, int64 [2, E'_r], positions in ``n_id_dict`` of both
            types; [2, 0] for relations without sampled edges.
        edge_attr_dict: for relations with features of edges, [E'_r, ...].
        y: [batch_size, ...], labels of the seeds; None if the loader has none.
        n_id_dict: for each type, int64 [N'_t], its nodes; ``n_id_dict[input_type][:batch_size]``
            are the seeds.
        e_id_dict: for each relation, int64 [E'_r], its edges among those of the graph.
        input_type: type of the seeds.
        input_id: int64 [batch_size], positions of the seeds among ``input_nodes``.
        batch_size: number of seeds.
        num_sampled_nodes_dict: for each type, the number of seeds, then of the nodes that each hop
            added.
        num_sampled_edges_dict: for each relation, the number of edges of each hop.

    Example:
        >>> import torch
        >>> from gat_ext.models import HGT
        >>> from gat_ext.sampling import NeighborLoader
        >>> writes, by = ("author", "writes", "paper"), ("paper", "written_by", "author")
        >>> edges = torch.tensor([[0, 1, 1], [2, 0, 2]])
        >>> x = {"author": torch.randn(2, 5), "paper": torch.randn(3, 7)}
        >>> data = {writes: edges, by: edges.flip(0)}, x
        >>> model = HGT({"author": 5, "paper": 7}, 8, 4, (list(x), [writes, by]), "paper")
        >>> loader = NeighborLoader(data, [2, 2], input_nodes="paper", batch_size=2)
        >>> for batch in loader:
        ...     model(batch.x_dict, batch.edge_index_dict)[: batch.batch_size].shape
        torch.Size([2, 4])
        torch.Size([1, 4])
    """

    x_dict: dict[str, Tensor]
    edge_index_dict: dict[Relation, Tensor]
    edge_attr_dict: dict[Relation, Tensor]
    y: Tensor | None
    n_id_dict: dict[str, Tensor]
    e_id_dict: dict[Relation, Tensor]
    input_type: str
    input_id: Tensor
    batch_size: int
    num_sampled_nodes_dict: dict[str, list[int]]
    num_sampled_edges_dict: dict[Relation, list[int]]

    if not TYPE_CHECKING:  # else every attribute would pass as Any

        def __getattr__(self, name: str) -> Any:
            """Raises AttributeError; it names the dictionary of an attribute of :class:`Batch`."""
            hint = (
                "; expected model(batch.x_dict, batch.edge_index_dict)" if name == "blocks" else ""
            )
            if f"{name}_dict" in type(self).__dataclass_fields__:
                hint = f"; expected {name}_dict, a dictionary of types or relations"
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    def __repr__(self) -> str:
        """Sizes of the batch."""
        nodes = {kind: n_id.shape[0] for kind, n_id in self.n_id_dict.items()}
        edges = {relation: e_id.shape[0] for relation, e_id in self.e_id_dict.items()}
        return (
            f"TypedBatch(input_type={self.input_type!r}, batch_size={self.batch_size}, "
            f"num_nodes={nodes}, num_edges={edges})"
        )
