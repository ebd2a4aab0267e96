"""Graphs cut into parts, one for each process of ``torch.distributed``.

Uses ``models``, ``nn``, ``functional``, ``graph`` and ``ops``. ``training`` and users may use what
this file exports; ``cut`` is internal.
"""

from __future__ import annotations

from gat_ext.distributed.part import Part, make_part, make_parts

__all__ = ["Part", "make_part", "make_parts"]
