"""Bytes that the process has allocated, for tests of leaks."""

from __future__ import annotations

import ctypes
import gc

import pytest

import gat_ext


class Blocks(ctypes.Structure):
    """Memory statistics of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")
    ]
    _fields_ += [(name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")]
    _fields_ += [("keepcost", ctypes.c_size_t)]


try:
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Blocks
except (AttributeError, OSError):
    pytest.skip("needs mallinfo2 of glibc 2.33", allow_module_level=True)


def live_bytes():
    """Live allocated bytes. Freezes live objects, so that later collections are quick."""
    gc.collect()
    gc.freeze()
    gat_ext.empty_cache()
    blocks = mallinfo()
    return blocks.uordblks + blocks.hblkhd
