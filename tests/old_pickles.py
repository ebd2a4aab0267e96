"""Pickles as Python 2 wrote them, in which data sets are published."""

from __future__ import annotations

import io
import pickle
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar


class Python2Pickler(pickle._Pickler):
    """Writes pickles as Python 2 did: byte strings for text and data, old module names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)
    OLD: ClassVar = {
        "builtins": "__builtin__",
        "numpy._core.multiarray": "numpy.core.multiarray",
        "scipy.sparse._csr": "scipy.sparse.csr",
    }

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        short = len(data) < 256
        size = len(data).to_bytes(1 if short else 4, "little")
        self.write((pickle.SHORT_BINSTRING if short else pickle.BINSTRING) + size + data)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = self.OLD.get(value.__module__, value.__module__)
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string
    dispatch[type] = save_global
    dispatch[BuiltinFunctionType] = dispatch[FunctionType] = save_global


def python2_dumps(value: Any) -> bytes:
    """The pickle of a value as Python 2 wrote it."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()
