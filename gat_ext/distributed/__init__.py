"""Graphs cut into parts, one for each process of ``torch.distributed``.

Uses ``models``, ``nn``, ``functional``, ``graph`` and ``ops``. ``training`` and users may use what
this file exports; ``cut``, ``methods`` and ``arrays`` are internal.
"""

from __future__ import annotations

from gat_ext.distributed.part import Part, make_part, make_parts
from gat_ext.distributed.partition import Partition, partition
from gat_ext.distributed.report import PartitionReport
from gat_ext.distributed.storage import StoredPart, load, save

__all__ = [
    "Part",
    "Partition",
    "PartitionReport",
    "StoredPart",
    "load",
    "make_part",
    "make_parts",
    "partition",
    "save",
]
