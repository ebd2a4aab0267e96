"""Files that were damaged, or made to exhaust memory or time: every one is refused by its name."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ppi import write_split
from test_tudataset import write, zipped

from gat_ext.datasets import _files, load, load_graphs
from gat_ext.datasets._unpickle import read_adjacency, read_array, read_csr

# ---- memory: each is read in a process that has few bytes to spare


def nested(levels: int) -> bytes:
    """A tuple of two tuples of two tuples …: 2 bytes a level, and 2 ** levels to print or hash."""
    return b")" + b"q\x00h\x00\x86" * levels


def array_of(shape: bytes, data: bytes = b"U\x08" + b"\0" * 8, code: bytes = b"U\x02f8") -> bytes:
    """A pickled array; shape, data and dtype code as they are pickled."""
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
    return empty + b"(I1\n" + shape + b"cnumpy\ndtype\n(" + code + b"I0\nI1\ntRI00\n" + data + b"tb"


def matrix_of(shape: bytes) -> bytes:
    """A pickled CSR matrix without entries."""
    int32 = b"U\x02i4"
    nothing = array_of(b"(I0\nt", b"U\x00")
    pointers = array_of(b"(I2\nt", b"U\x08" + b"\0" * 8, int32)
    parts = b"U\x04data" + nothing + b"U\x07indices" + array_of(b"(I0\nt", b"U\x00", int32)
    state = b"}(" + parts + b"U\x06indptr" + pointers + b"U\x06_shape" + shape + b"u"
    return b"cscipy.sparse.csr\ncsr_matrix\n)\x81" + state + b"b"


BYTES = b"T" + (100_000).to_bytes(4, "little") + bytes(100_000) + b"q\x01"
TWICE = b"(" + b"h\x01" * 5_000 + b"t"  # the same object again and again
COPIES = b"".join(
    b"cnumpy\nndarray\n)\x81(I1\n(I100000\ntcnumpy\ndtype\n(U\x02i1I0\nI1\ntRI00\nh\x01tb"
    for _ in range(5_000)
)
PICKLES = {
    "number of an object": b"]r" + (600_000_000).to_bytes(4, "little"),
    "number of an object, as text": b"]p600000000\n",
    "bytes that are not there": b"B" + (2**32 - 1).to_bytes(4, "little"),
    "byte array that is not there": b"\x96" + (2**33).to_bytes(8, "little"),
    "string that is not there": b"\x8d" + (2**33).to_bytes(8, "little"),
    "frame that is not there": b"\x95" + (2**33).to_bytes(8, "little"),
    "shape without end": array_of(nested(40)),
    "byte order without end": b"cnumpy\ndtype\n(U\x02f8I0\nI1\ntR(I3\n" + nested(40) + b"tb",
    "class without end": b"cnumpy.core.multiarray\n_reconstruct\n(" + nested(40) + b"I0\nU\x01btR",
    "key without end": b"}" + nested(40) + b"I1\ns",
    "keys without end": b"}(" + nested(40) + b"I1\nu",
    "dict of keys without end": b"(" + nested(40) + b"I1\nd",
    "set without end": b"\x8f(" + nested(40) + b"\x90",
    "frozen set without end": b"(" + nested(40) + b"\x91",
    "shape of a matrix without end": matrix_of(nested(40)),
    "lists from one": b"("
    + b"K\x01" * 50_000
    + b"tq\x01("
    + b"c__builtin__\nlist\nh\x01\x85R" * 5_000
    + b"t",
    "dicts from one": b"}q\x01(" + b"ccollections\ndefaultdict\nNh\x01\x86R" * 5_000 + b"t",
    "array of a huge shape": array_of(b"(I1000000000000\nt"),
    "state of a list": b"](U\x01aI1\ntb",
}


def test_small_pickles_that_ask_for_much_memory(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in PICKLES.items():
        (folder / name).write_bytes(b"\x80\x02" + content + b".")
    copies = b"\x80\x02" + BYTES + b"(" + COPIES + b"t."
    (folder / "arrays from one").write_bytes(copies)
    neighbours = b"](" + b"K\x01" * 30_000 + b"eq\x01"
    (folder / "neighbours of all").write_bytes(
        b"\x80\x02"
        + neighbours
        + b"}("
        + b"".join(b"I%d\nh\x01" % n for n in range(20_000))
        + b"u."
    )
    found = read_with_little_memory(
        tmp_path,
        """
        from gat_ext.datasets._unpickle import read_adjacency, read_array, read_csr
        for path in sorted((folder / "files").iterdir()):
            for read in (read_adjacency, read_array, read_csr):
                attempt(path.name, pickle.UnpicklingError, lambda: read(path))
        """,
    )
    assert set(found) == {path.name for path in folder.iterdir()}
    assert {name: said for name, said in found.items() if said != "refused"} == {}


def long_names(archive: Path) -> None:
    """1 GB of parents in a zip of 130 kB."""
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/" * 32_767 + "a", "")


def zip_of(archive: Path, **members: bytes) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def test_small_archives_that_ask_for_much_memory(tmp_path: Path) -> None:
    for name in ("names", "bomb", "ppi-bomb", "shape", "planetoid"):
        (tmp_path / name).mkdir()
    long_names(tmp_path / "names" / "TINY.zip")
    small = {"TINY_A.txt": b"1, 2\n", "TINY_graph_labels.txt": b"1\n"}
    zip_of(tmp_path / "bomb" / "TINY.zip", **small, **{"TINY_graph_indicator.txt": b"1\n" * 2**26})
    write_split(tmp_path / "split")
    zipped(tmp_path / "split", tmp_path / "ppi-bomb" / "ppi.zip", "")
    (tmp_path / "split" / "train_feats.npy").write_bytes(b" " * 2**27)
    zipped(tmp_path / "split", tmp_path / "ppi-bomb" / "ppi.zip", "")
    write_split(tmp_path / "shape")
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**7, 100)}
    with (tmp_path / "shape" / "train_feats.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    for part in ("x", "tx", "allx"):
        (tmp_path / "planetoid" / f"ind.cora.{part}").write_bytes(
            b"\x80\x02" + matrix_of(b"(I1\nI100000000000\nt") + b"."
        )
    for part in ("y", "ty", "ally", "graph", "test.index"):
        (tmp_path / "planetoid" / f"ind.cora.{part}").write_bytes(b"1")
    found = read_with_little_memory(
        tmp_path,
        """
        from gat_ext.datasets import load, load_graphs
        attempt("names", FileNotFoundError, lambda: load_graphs("tu:TINY", folder / "names"))
        attempt("bomb", ValueError, lambda: load_graphs("tu:TINY", folder / "bomb"))
        attempt("ppi-bomb", ValueError, lambda: load("ppi", folder / "ppi-bomb"))
        attempt("shape", ValueError, lambda: load("ppi", folder / "shape"))
        attempt("planetoid", ValueError, lambda: load("cora", folder / "planetoid"))
        """,
    )
    assert found == dict.fromkeys(("names", "bomb", "ppi-bomb", "shape", "planetoid"), "refused")


READER = """
import json, pickle, resource, sys
from pathlib import Path
folder, found = Path(sys.argv[1]), {}
import numpy, scipy.sparse, gat_ext.datasets
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.RLIM_INFINITY))

def attempt(name, expected, read):
    try:
        result = read()
    except expected as error:
        named = str(folder) in str(error) and len(str(error)) < 2000
        said = "refused" if named else str(error)[:500]
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"[:500]
    else:
        said = "read"
    if found.get(name, "refused") == "refused":
        found[name] = said

"""


def read_with_little_memory(folder: Path, code: str) -> dict[str, str]:
    """What ``attempt`` found, in a process that may take 150 MiB and 60 seconds."""
    lines = [line.removeprefix(" " * 8) for line in code.splitlines()]
    script = READER + "\n".join([*lines, "print(json.dumps(found))"])
    run = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return dict(json.loads(run.stdout))


# ---- damage


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, a range removed, copied or zeroed, or the end cut off."""
    changed = bytearray(content)
    how = generator.randrange(6)
    first = generator.randrange(len(changed))
    length = generator.choice((1, 2, 4, 30, 200))
    if how < 3:
        for _ in range(generator.choice((1, 2, 8))):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
    elif how == 3:
        del changed[first : first + length]
    elif how == 4:
        changed[first : first + length] = bytes(length)
    else:
        del changed[first:]
    return bytes(changed)


# Fields of a member's two headers: version, flags, method, CRC, sizes and the like.
FIELDS = (4, 5, 6, 7, 8, 9, 10, 11, 14, 18, 22, 26, 28, 30, 42)


def damaged_headers(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    marks = [
        place
        for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")
        for place in range(len(content))
        if content.startswith(mark, place)
    ]
    for _ in range(generator.choice((1, 1, 2))):
        place = generator.choice(marks) + generator.choice(FIELDS)
        if place < len(changed):
            changed[place] = generator.choice((0, 1, 2, 8, 9, 12, 14, 63, 127, 255))
    return bytes(changed)


@pytest.mark.parametrize("damage", [damaged, damaged_headers])
def test_damaged_zips(tmp_path: Path, damage: Any) -> None:
    archive = zipped(write(tmp_path / "files"), tmp_path / "root" / "TINY.zip")
    content, generator, refused = archive.read_bytes(), random.Random(0), 0
    for _ in range(250):
        archive.write_bytes(damage(content, generator))
        try:
            load_graphs("tu:TINY", archive.parent)
        except FileNotFoundError:
            refused += 1  # the name of a member was damaged
        except ValueError as error:
            assert str(archive) in str(error), error
            refused += 1
    assert refused > 50


def test_a_member_larger_than_its_zip(tmp_path: Path) -> None:
    """zipfile would allocate what the entry says, before it reads."""
    archive = zipped(write(tmp_path / "files"), tmp_path / "root" / "TINY.zip")
    content = bytearray(archive.read_bytes())
    entry = content.index(b"PK\x01\x02")
    while entry >= 0:  # the packed size, in each entry of the directory
        content[entry + 20 : entry + 24] = (2**31 - 1).to_bytes(4, "little")
        entry = content.find(b"PK\x01\x02", entry + 1)
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"takes 2147483647 bytes of the zip, which has \d+;"):
        load_graphs("tu:TINY", archive.parent)


def test_damaged_zips_of_ppi(tmp_path: Path) -> None:
    archive = zipped(write_split(tmp_path / "files"), tmp_path / "root" / "ppi.zip", "")
    content, generator, refused = archive.read_bytes(), random.Random(0), 0
    for number in range(100):
        archive.write_bytes((damaged, damaged_headers)[number % 2](content, generator))
        try:
            load("ppi", archive.parent)
        except FileNotFoundError:
            refused += 1
        except ValueError as error:
            assert "ppi" in str(error), error
            refused += 1
    assert refused > 20


def assert_short(error: BaseException, named: Path) -> None:
    text = str(error)
    assert str(named) in text and len(text) < 800 and "\n" not in text, text


def test_errors_do_not_quote_the_file(tmp_path: Path) -> None:
    graph = write_split(tmp_path / "json") / "train_graph.json"
    graph.write_bytes(graph.read_bytes() * 500 + b"\xbd")
    header = write_split(tmp_path / "header") / "train_feats.npy"
    content = bytearray(header.read_bytes())
    content[60] = 0  # inside the header, which NumPy then reads by Python's tokenizer
    header.write_bytes(content)
    for folder in (graph.parent, header.parent):
        with pytest.raises(ValueError, match="are damaged") as caught:
            load("ppi", folder)
        assert_short(caught.value, folder)
    text = tmp_path / "text"
    text.write_bytes(b"\x80\x02X" + (50_000).to_bytes(4, "little") + b"a" * 49_999 + b"\xff.")
    with pytest.raises(pickle.UnpicklingError, match="damaged") as refused:
        read_adjacency(text)
    assert_short(refused.value, text)


def test_a_class_of_a_long_name_is_refused_in_a_line(tmp_path: Path) -> None:
    file, module = tmp_path / "file", b"a\n" * 20_000
    size = len(module).to_bytes(4, "little")
    file.write_bytes(b"\x80\x04X" + size + module + b"\x8c\x01b\x93.")
    with pytest.raises(pickle.UnpicklingError, match=r"it calls 'a\\na") as caught:
        read_array(file)
    assert_short(caught.value, file)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "TINY.zip", "w", method) as file:
        for path in write(tmp_path / "files").iterdir():
            file.write(path, path.name)
    with pytest.raises(ValueError, match=rf"compressed by method {method}, expected Deflate"):
        load_graphs("tu:TINY", tmp_path)


def test_encrypted_zip(tmp_path: Path) -> None:
    archive = zipped(write(tmp_path / "files"), tmp_path / "TINY.zip", "")
    content = bytearray(archive.read_bytes())
    for mark, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        for place in range(len(content)):
            if content.startswith(mark, place):
                content[place + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"TINY_graph_indicator\.txt is encrypted; if you trust"):
        load_graphs("tu:TINY", tmp_path)


def test_a_member_may_unpack_to_a_multiple_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "LARGEST_MEMBER", 10)
    random_text = "".join(f"{random.Random(0).random()}\n" for _ in range(6))
    zipped(write(tmp_path / "files", node_attributes=random_text), tmp_path / "root" / "TINY.zip")
    assert len(load_graphs("tu:TINY", tmp_path / "root")) == 3


@pytest.mark.parametrize("read", [read_adjacency, read_array, read_csr])
def test_damaged_pickles(tmp_path: Path, read: Any, python2_dumps: Any) -> None:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    whole = {
        read_adjacency: {node: [node + 1, 2 * node] for node in range(40)},
        read_array: np.arange(40.0).reshape(8, 5),
        read_csr: scipy_sparse.csr_matrix(np.eye(12)),
    }
    content, generator, refused = python2_dumps(whole[read]), random.Random(0), 0
    file = tmp_path / "file"
    for _ in range(150):
        file.write_bytes(damaged(content, generator))
        try:
            read(file)
        except pickle.UnpicklingError as error:
            assert str(file) in str(error)
            refused += 1
    assert refused > 40
