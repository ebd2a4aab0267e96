"""Reads the pickles in which some data sets are published, without executing their code.

A pickle names functions and classes for the reader to call. This reader accepts only the names in
Python-2 pickles of NumPy arrays, SciPy CSR matrices and adjacency dicts, and raises for any other
before importing its module. For the accepted names it calls substitutes that record their
arguments, because NumPy and SciPy trust the state in a pickle, and a crafted state could corrupt
memory. The arrays are then built from the record, and checked.
"""

from __future__ import annotations

import pickle
import re
from collections import defaultdict
from typing import Any

import numpy as np

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._files import Folder
from gat_ext.datasets._optional import require


class _DType:
    """Substitute for ``numpy.dtype``."""

    def __init__(self, code: str, align: int = 0, copy: int = 0) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"dtype {code!r} is not a plain number")
        self.value: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Substitute for ``numpy.ndarray`` and for the function that creates an empty one."""

    def __init__(self, cls: type, shape: tuple[int, ...], code: str) -> None:
        if cls is not _Array:
            raise pickle.UnpicklingError(f"{cls!r} is not numpy.ndarray")
        self.value: Array = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _DType) or any(
            type(size) is not int or size < 0 for size in shape
        ):
            raise pickle.UnpicklingError(
                f"an array of shape {shape!r} and dtype {dtype!r} is not plain data"
            )
        # Python-2 strings were decoded as latin-1.
        data = raw.encode("latin-1") if isinstance(raw, str) else raw
        flat = np.frombuffer(data, dtype.value).astype(dtype.value.newbyteorder("="))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class _CsrMatrix:
    """Substitute for ``scipy.sparse.csr_matrix``."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shape = state["_shape"]
        self.parts = [state[part] for part in ("data", "indices", "indptr")]

    def build(self) -> Any:
        """Builds the SciPy matrix; raises ValueError if its parts do not match."""
        if not all(isinstance(part, _Array) for part in self.parts):
            raise ValueError("a CSR matrix whose parts are not arrays")
        data, indices, indptr = (part.value for part in self.parts)
        if indices.dtype.kind != "i" or indptr.dtype.kind != "i":
            raise ValueError(
                f"a CSR matrix with indices of {indices.dtype} and {indptr.dtype}, "
                "expected integers"
            )
        matrix = require("scipy.sparse").csr_matrix((data, indices, indptr), shape=self.shape)
        matrix.check_format(full_check=True)
        return matrix


_ADMITTED: dict[tuple[str, str], type] = {
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    ("collections", "defaultdict"): defaultdict,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("scipy.sparse.csr", "csr_matrix"): _CsrMatrix,
    ("scipy.sparse._csr", "csr_matrix"): _CsrMatrix,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(
                f"it calls {module}.{name}; expected only NumPy arrays, SciPy CSR matrices, dicts "
                "and lists. This is not the published file: download it again from its source"
            )
        return admitted


def _load(path: Folder) -> Any:
    try:
        with path.open("rb") as file:
            loaded = _Unpickler(file, encoding="latin-1").load()
            return loaded.build() if isinstance(loaded, _CsrMatrix) else loaded
    except (ImportError, OSError):
        raise
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(f"cannot read {path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise pickle.UnpicklingError(f"cannot read {path}, it is damaged: {error!r}") from error


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
    if not isinstance(loaded, _Array):
        raise pickle.UnpicklingError(f"{path} does not hold an array")
    return loaded.value


def read_adjacency(path: Folder) -> dict[int, list[int]]:
    """The pickled dict in ``path``, from a node to the list of its neighbours.

    Raises:
        pickle.UnpicklingError: As ``read_csr``.
    """
    loaded = _load(path)
    if not isinstance(loaded, dict) or not all(
        type(node) is int and type(near) is list and all(type(other) is int for other in near)
        for node, near in loaded.items()
    ):
        raise pickle.UnpicklingError(f"{path} is not a dict from nodes to lists of neighbours")
    return dict(loaded)
