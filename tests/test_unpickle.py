"""The reader of published pickles reads them and rejects everything else."""

from __future__ import annotations

import os
import pickle
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from gat_ext.datasets._unpickle import read_adjacency, read_array, read_csr


@pytest.fixture(params=["python 2", "protocol 3"])
def dumps(request: pytest.FixtureRequest, python2_dumps: Any) -> Any:
    """Pickles with old and with current names of modules."""
    return python2_dumps if request.param == "python 2" else lambda value: pickle.dumps(value, 3)


MATRIX = scipy.sparse.csr_matrix(np.array([[0, 2.5, 0], [1, 0, -1]], dtype=np.float32))


def test_reads_what_was_written(tmp_path: Path, dumps: Any) -> None:
    file = tmp_path / "file"
    file.write_bytes(dumps(MATRIX))
    matrix = read_csr(file)
    assert matrix.dtype == np.float32 and matrix.toarray().tolist() == MATRIX.toarray().tolist()
    for array in (np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.eye(3)[:2])):
        file.write_bytes(dumps(array))
        assert read_array(file).tolist() == array.tolist()
        assert read_array(file).dtype == array.dtype.newbyteorder("=")
    file.write_bytes(dumps(defaultdict(list, {0: [1, 1], 7: []})))
    assert read_adjacency(file) == {0: [1, 1], 7: []}


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


ATTACKS = {
    "system": lambda mark: Call(os.system, f"touch {mark}"),
    "eval": lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
    "exec": lambda mark: Call(exec, f"open({str(mark)!r}, 'w')"),
    "getattr": lambda mark: Call(getattr, Call(__import__, "os"), "system"),
    "save": lambda mark: Call(np.save, str(mark), np.zeros(1)),
    "load": lambda mark: Call(np.load, str(mark), None, True),
    "memmap": lambda mark: Call(np.memmap, str(mark), "u1", "w+", 0, (1,)),
    "csc_matrix": lambda mark: scipy.sparse.csc_matrix(np.eye(2)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_code_runs(tmp_path: Path, name: str, dumps: Any) -> None:
    mark, file = tmp_path / "mark", tmp_path / "file"
    file.write_bytes(dumps(ATTACKS[name](mark)))
    refusal = rf"cannot read .*file: it calls \S+\.(__import__|{name});"
    for read in (read_csr, read_array, read_adjacency):
        with pytest.raises(pickle.UnpicklingError, match=refusal):
            read(file)
    assert not mark.exists()


def test_the_attacks_work_with_plain_unpickling(tmp_path: Path, python2_dumps: Any) -> None:
    """The fixtures work: the plain unpickler executes them."""
    for name in ("system", "exec", "save", "memmap"):
        mark = tmp_path / f"mark-{name}.npy"
        pickle.loads(python2_dumps(ATTACKS[name](mark)))
        assert mark.exists()


def test_no_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sly_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "file"
    for module in ("sly_module", "numpy.core.sly_module"):
        file.write_bytes(f"\x80\x02c{module}\nndarray\n.".encode("latin-1"))
        with pytest.raises(pickle.UnpicklingError, match=f"calls {module}.ndarray"):
            read_array(file)
    assert "sly_module" not in sys.modules


# An array of 8 bytes: dtype, then (version, shape, dtype, fortran, data).
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
    b"(I1\n%scnumpy\ndtype\n(U%sI0\nI1\ntR%sI00\n%stb"
)
# With flags 63 NumPy would treat the 8 bytes as a pointer to an object.
DTYPE_STATE = b"(I3\nU\x01%sNNNI-1\nI-1\nI63\ntb"
PLAIN = (b"(I1\nt", b"\x02f8", b"", b"U\x08" + b"\0" * 8)
CRAFTED_ARRAYS = {
    "object dtype": (b"(I1\nt", b"\x02O8", b"", b"U\x08" + b"\x41" * 8),
    "record dtype": (b"(I1\nt", b"\x02V8", b"", b"U\x08" + b"\x41" * 8),
    "unknown byte order": (b"(I1\nt", b"\x02f8", DTYPE_STATE % b"x", b"U\x08" + b"\0" * 8),
    "shape beyond the data": (b"(I1000000\nt", b"\x02f8", b"", b"U\x08" + b"\0" * 8),
    "negative shape": (b"(I-1\nt", b"\x02f8", b"", b"U\x08" + b"\0" * 8),
    "data that is no string": (b"(I1\nt", b"\x02f8", b"", b"I8\n"),
}


@pytest.mark.parametrize("state", [b"", DTYPE_STATE % b"<"])
def test_plain_array_is_read(tmp_path: Path, state: bytes) -> None:
    shape, dtype, _, data = PLAIN
    (tmp_path / "file").write_bytes(b"\x80\x02" + ARRAY % (shape, dtype, state, data) + b".")
    assert read_array(tmp_path / "file").tolist() == [0.0]


@pytest.mark.parametrize("name", CRAFTED_ARRAYS)
def test_crafted_arrays(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"\x80\x02" + ARRAY % CRAFTED_ARRAYS[name] + b".")
    with pytest.raises(pickle.UnpicklingError, match=r"cannot read .*file"):
        read_array(tmp_path / "file")


def crafted_csr(python2_dumps: Any, **fields: Any) -> bytes:
    matrix = scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32))
    matrix.__dict__.update(fields)
    return python2_dumps(matrix)


CRAFTED_CSR = {
    "index beyond the columns": {"indices": np.array([0, 1, 2**30], dtype=np.int32)},
    "negative index": {"indices": np.array([0, 1, -5], dtype=np.int32)},
    "pointer beyond the data": {"indptr": np.array([0, 1, 2, 2**30], dtype=np.int32)},
    "falling pointers": {"indptr": np.array([0, 3, 1, 3], dtype=np.int32)},
    "rows without pointers": {"_shape": (10**6, 3)},
    "shape of one number": {"_shape": (3,)},
    "indices that are no array": {"indices": [0, 1, 2]},
    "floating indices": {"indices": np.array([0.0, 1.0, 2.0])},
    "short data": {"data": np.ones(1, dtype=np.float32)},
}


@pytest.mark.parametrize("name", CRAFTED_CSR)
def test_crafted_matrices(tmp_path: Path, name: str, python2_dumps: Any) -> None:
    (tmp_path / "file").write_bytes(crafted_csr(python2_dumps, **CRAFTED_CSR[name]))
    with pytest.raises(pickle.UnpicklingError, match=r"cannot read .*file"):
        read_csr(tmp_path / "file")


@pytest.mark.parametrize("state", [b"}U\x05valueI1\ns", b"(N}U\x05valueI1\nst"])
@pytest.mark.parametrize(
    "target", [b"cnumpy\ndtype\n", b"cscipy.sparse.csr\ncsr_matrix\n", b"c__builtin__\nlist\n"]
)
def test_pickles_cannot_change_the_reader(
    tmp_path: Path, target: bytes, state: bytes, python2_dumps: Any
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\x80\x02" + target + state + b"b.")
    with pytest.raises(pickle.UnpicklingError, match="damaged"):
        read_csr(file)
    file.write_bytes(crafted_csr(python2_dumps))
    assert read_csr(file).toarray().tolist() == np.eye(3).tolist()


def test_damaged_and_mistaken_files(tmp_path: Path, python2_dumps: Any) -> None:
    file = tmp_path / "file"
    whole = python2_dumps(MATRIX)
    for content in (b"", b"<html>", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(pickle.UnpicklingError, match=r"cannot read .*file"):
            read_csr(file)
    file.write_bytes(python2_dumps({1: [2]}))
    with pytest.raises(pickle.UnpicklingError, match="does not hold a CSR matrix"):
        read_csr(file)
    with pytest.raises(pickle.UnpicklingError, match="does not hold an array"):
        read_array(file)
    file.write_bytes(python2_dumps({1: ["2"]}))
    with pytest.raises(pickle.UnpicklingError, match="not a dict from nodes to lists"):
        read_adjacency(file)
