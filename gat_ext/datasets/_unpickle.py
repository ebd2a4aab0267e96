"""Reads the pickles in which some data sets are published, without executing their code.

A pickle names functions and classes for the reader to call. This reader accepts only the names in
Python-2 pickles of NumPy arrays, SciPy CSR matrices and adjacency dicts, and raises for any other
before importing its module. For the accepted names it calls substitutes that record their
arguments, because NumPy and SciPy trust the state in a pickle, and a crafted state could corrupt
memory. The arrays are then built from the record, and checked.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._files import Folder, in_a_line
from gat_ext.datasets._optional import require


class _DType:
    """Substitute for ``numpy.dtype``."""

    def __init__(self, code: str, align: int = 0, copy: int = 0) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"dtype {code[:20]!r} is not a plain number")
        self.value: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if type(order) is not str or len(order) != 1:
            raise pickle.UnpicklingError("a byte order is not one letter")
        self.value = self.value.newbyteorder(order)  # type: ignore[arg-type]


class _Array:
    """Substitute for ``numpy.ndarray`` and for the function that creates an empty one.

    Its state stays unread until :meth:`build`, so that a pickle cannot request many copies of the
    same bytes.
    """

    state: tuple[Any, ...] = ()

    def __init__(self, cls: type, shape: tuple[int, ...], code: str) -> None:
        if cls is not _Array:
            raise pickle.UnpicklingError("an array is not of class numpy.ndarray")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def build(self) -> Array:
        """Builds the array; raises an error of any kind if the state is not that of one."""
        if not self.state:
            return np.empty(0)
        _, shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _DType) or not _is_shape(shape):
            raise pickle.UnpicklingError("the shape or the dtype of an array is not plain data")
        # Python-2 strings were decoded as latin-1.
        data = raw.encode("latin-1") if isinstance(raw, str) else raw
        flat = np.frombuffer(data, dtype.value).astype(dtype.value.newbyteorder("="))
        return flat.reshape(shape, order="F" if fortran else "C")


def _is_shape(shape: Any) -> bool:
    return type(shape) is tuple and all(type(size) is int and 0 <= size < 2**63 for size in shape)


class _CsrMatrix:
    """Substitute for ``scipy.sparse.csr_matrix``."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shape = state["_shape"]
        self.parts = [state[part] for part in ("data", "indices", "indptr")]

    def build(self) -> Any:
        """Builds the SciPy matrix; raises an error of any kind if its parts do not match."""
        if not all(isinstance(part, _Array) for part in self.parts):
            raise ValueError("a CSR matrix whose parts are not arrays")
        if not _is_shape(self.shape) or len(self.shape) != 2:
            raise ValueError("a CSR matrix whose shape is not two sizes")
        data, indices, indptr = (part.build() for part in self.parts)
        if indices.dtype.kind != "i" or indptr.dtype.kind != "i":
            raise ValueError(
                f"a CSR matrix with indices of {indices.dtype} and {indptr.dtype}, "
                "expected integers"
            )
        matrix = require("scipy.sparse").csr_matrix((data, indices, indptr), shape=self.shape)
        matrix.check_format(full_check=True)
        return matrix


class _List:
    """Substitute for ``list``, which a defaultdict names and no published pickle calls."""

    def __init__(self) -> None:
        raise pickle.UnpicklingError("a list is made by a call")


class _Dict(dict[Any, Any]):
    """Substitute for ``collections.defaultdict``, which is made empty."""

    def __init__(self, factory: type | None = None) -> None:
        super().__init__()


_ADMITTED: dict[tuple[str, str], type] = {
    ("__builtin__", "list"): _List,
    ("builtins", "list"): _List,
    ("collections", "defaultdict"): _Dict,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("scipy.sparse.csr", "csr_matrix"): _CsrMatrix,
    ("scipy.sparse._csr", "csr_matrix"): _CsrMatrix,
}
_Base: Any = pickle._Unpickler


def _refuse(reader: Any) -> None:
    raise pickle.UnpicklingError("it is damaged, or not the published file: an unknown object")


def _build(reader: Any) -> None:
    if type(reader.stack[-2]) not in (_DType, _Array, _CsrMatrix):
        raise pickle.UnpicklingError("it is damaged: it has the state of a plain object")
    reader.load_build()


def _set_items(reader: Any, code: int, keys: slice) -> None:
    # The hash of a tuple of tuples of tuples can take time beyond any bound.
    if not all(type(key) in (int, str) for key in reader.stack[keys]):
        raise pickle.UnpicklingError("it is damaged: a key is not an integer or a string")
    _Base.dispatch[code](reader)


def _dispatch() -> dict[int, Callable[[Any], None]]:
    """What to do for each code: as Python does, except where that has no bounds."""
    table: dict[int, Callable[[Any], None]] = {**_Base.dispatch, pickle.BUILD[0]: _build}
    # One allocates what the file says before it reads it, the others hash objects of any kind.
    for name in (pickle.BYTEARRAY8, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):
        table[name[0]] = _refuse
    even = slice(0, None, 2)
    for name, keys in (
        (pickle.SETITEM, slice(-2, -1)),
        (pickle.SETITEMS, even),
        (pickle.DICT, even),
    ):
        table[name[0]] = partial(_set_items, code=name[0], keys=keys)
    return table


class _Unpickler(_Base):  # type: ignore[misc]
    """Python's unpickler in Python, which takes memory in proportion to the file.

    The one in C allocates a table as long as the largest number that the file gives to an object.
    """

    dispatch = _dispatch()

    def find_class(self, module: str, name: str) -> type:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            called = f"{module}.{name}"[:100]  # the file's own text, of any length
            called = called if called.isprintable() else ascii(called)
            raise pickle.UnpicklingError(
                f"it calls {called}; expected only NumPy arrays, SciPy CSR matrices, dicts "
                "and lists. This is not the published file: download it again from its source"
            )
        return admitted


def _load(path: Folder) -> Any:
    """What the file holds: a list, a dict, an array or a matrix."""
    content = path.read_bytes()
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="latin-1").load()
        return loaded.build() if isinstance(loaded, (_Array, _CsrMatrix)) else loaded
    except (ImportError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(f"cannot read {path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise pickle.UnpicklingError(
            f"cannot read {path}, it is damaged: {in_a_line(error)}"
        ) from error


def read_csr(path: Folder) -> Any:
    """The SciPy CSR matrix pickled in ``path``, its index arrays checked.

    Raises:
        pickle.UnpicklingError: The file is damaged, calls any other class or function, or does not
            hold a CSR matrix.
        ImportError: scipy is missing.
    """
    loaded = _load(path)
    if not hasattr(loaded, "toarray"):
        raise pickle.UnpicklingError(f"{path} does not hold a CSR matrix")
    return loaded


def read_array(path: Folder) -> Array:
    """The NumPy array of numbers pickled in ``path``.

    Raises:
        pickle.UnpicklingError: As ``read_csr``.
    """
    loaded = _load(path)
    if not isinstance(loaded, np.ndarray):
        raise pickle.UnpicklingError(f"{path} does not hold an array")
    return loaded


def read_adjacency(path: Folder) -> dict[int, list[int]]:
    """The pickled dict in ``path``, from a node to the list of its neighbours.

    Raises:
        pickle.UnpicklingError: As ``read_csr``.
    """
    loaded = _load(path)
    if not isinstance(loaded, dict) or not all(
        type(node) is int and type(near) is list for node, near in loaded.items()
    ):
        raise pickle.UnpicklingError(f"{path} is not a dict from nodes to lists of neighbours")
    # One list for all nodes would stand for edges without bounds.
    if len({id(near) for near in loaded.values()}) != len(loaded):
        raise pickle.UnpicklingError(f"{path} has one list of neighbours for several nodes")
    if not all(type(other) is int for near in loaded.values() for other in near):
        raise pickle.UnpicklingError(f"{path} is not a dict from nodes to lists of neighbours")
    return dict(loaded)
