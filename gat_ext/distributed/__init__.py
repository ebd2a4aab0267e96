"""Graphs cut into parts, one for each process of ``torch.distributed``.

Uses ``models``, ``nn``, ``functional``, ``graph`` and ``ops``. ``training`` and users may use what
this file exports. ``modes`` has the attention; ``exchange`` sends rows; ``storage`` and ``methods``
are for partitions, ``checkpoint`` for trainings.
"""

from __future__ import annotations

from gat_ext.distributed.checkpoint import load_checkpoint, save_checkpoint
from gat_ext.distributed.exchange import Traffic
from gat_ext.distributed.failures import (
    RankError,
    naming_the_dead,
    raised_by_all,
    report_failure,
)
from gat_ext.distributed.features import input_features
from gat_ext.distributed.graph import DistGraph
from gat_ext.distributed.modes import MODES
from gat_ext.distributed.norms import GlobalNorm, convert_norms, normalise
from gat_ext.distributed.part import Part, make_part, make_parts
from gat_ext.distributed.partition import Partition, partition
from gat_ext.distributed.reduce import (
    accuracy,
    average_gradients,
    binary_cross_entropy,
    cross_entropy,
    global_mean,
    sum_over_processes,
)
from gat_ext.distributed.report import PartitionReport
from gat_ext.distributed.storage import StoredPart, load, save

__all__ = [
    "MODES",
    "DistGraph",
    "GlobalNorm",
    "Part",
    "Partition",
    "PartitionReport",
    "RankError",
    "StoredPart",
    "Traffic",
    "accuracy",
    "average_gradients",
    "binary_cross_entropy",
    "convert_norms",
    "cross_entropy",
    "global_mean",
    "input_features",
    "load",
    "load_checkpoint",
    "make_part",
    "make_parts",
    "naming_the_dead",
    "normalise",
    "partition",
    "raised_by_all",
    "report_failure",
    "save",
    "save_checkpoint",
    "sum_over_processes",
]
