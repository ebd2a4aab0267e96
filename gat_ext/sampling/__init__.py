"""Sampled mini-batches for graphs that are too large for full-batch training.

``NeighborLoader`` has PyG's arguments and yields batches whose blocks every model and layer takes;
``LinkNeighborLoader`` is for edges, and ``NeighborSampler`` is the sampler alone. Nodes and edges
may have several types: ``TypedBatch`` and ``TypedNeighborSampler``. ``inference`` computes a
model's exact results for all nodes, layer by layer; ``MappedGraph`` is a graph in files.

Uses ``graph`` and ``ops``.
"""

from gat_ext.sampling.batch import Batch
from gat_ext.sampling.inference import inference
from gat_ext.sampling.links import LinkBatch, LinkNeighborLoader
from gat_ext.sampling.loader import NeighborLoader
from gat_ext.sampling.sampler import NeighborSampler, Sample, Subgraph
from gat_ext.sampling.storage import MappedGraph
from gat_ext.sampling.typed_batch import TypedBatch
from gat_ext.sampling.typed_sampler import TypedNeighborSampler, TypedSample

__all__ = [
    "Batch",
    "LinkBatch",
    "LinkNeighborLoader",
    "MappedGraph",
    "NeighborLoader",
    "NeighborSampler",
    "Sample",
    "Subgraph",
    "TypedBatch",
    "TypedNeighborSampler",
    "TypedSample",
    "inference",
]
