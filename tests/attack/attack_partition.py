"""Graphs cut into parts, saved and read again, then files with bytes and descriptions damaged.

Each way of cutting gives the parts that a loop over the edges gives. A damaged file is refused with
an error that names it, or is read.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from random_calls import Note
from test_partition import check, drawn, oracle, same

from gat_ext.distributed import Partition, load, make_part, partition, save

REFUSALS = (ValueError, FileNotFoundError)
ODD = [None, -1, 0, 1, 2**40, 1.5, "x", "", [], [1], {}, {"shape": [2]}, True]


def attack(rnd: Random, note: Note) -> None:
    """Cuts a graph, saves it, damages a file and reads the part."""
    edges, assignment, parts = drawn(rnd.getrandbits(20))
    found = partition(edges, parts, "given", assignment=assignment)
    note(f"{edges.tolist()}, {assignment}, {parts} parts")
    shared = isinstance(assignment, torch.Tensor)
    both = (assignment, assignment) if shared else assignment
    rank = rnd.randrange(parts)
    part = make_part(edges, assignment, rank, parts)
    check(part, oracle(edges, *both, rank, parts, shared))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "parts")
        x = torch.rand(both[1].shape[0], 2)
        save(folder, edges, found, dst_x=x, edge_attr=torch.rand(edges.shape[1]))
        stored = load(folder, rank)
        same(part, stored.part)
        assert torch.equal(stored.tensors["dst_x"], x[part.dst_nodes])
        damage(rnd, note, folder, found, rank)
        try:
            load(folder, rank)
        except REFUSALS as error:
            assert name in str(error), f"{error!r} does not name a file"
            assert "\n" not in str(error), f"{error!r} has several lines"


def damage(rnd: Random, note: Note, folder: Path, found: Partition, rank: int) -> None:
    """Flips, cuts, removes or exchanges files that this rank reads."""
    mine = [*sorted((folder / f"part-{rank:04d}").iterdir()), folder / "partition.json"]
    path = rnd.choice(mine)
    content = bytearray(path.read_bytes())
    how = rnd.choice(["flip", "cut", "remove", "exchange", "describe", "describe"])
    if how == "flip":
        for _ in range(rnd.randint(1, 4)):
            content[rnd.randrange(min(len(content), 150))] = rnd.getrandbits(8)
    elif how == "cut":
        del content[rnd.randrange(len(content)) :]
    elif how == "exchange":
        content = bytearray(rnd.choice(mine).read_bytes())
    elif how == "describe":
        path = rnd.choice([one for one in mine if one.suffix == ".json"])
        record = json.loads(path.read_text())
        replace(rnd, record)
        content = bytearray(json.dumps(record).encode())
    note(f"{how} {path.name}: {bytes(content[:3000])!r}")
    path.unlink()
    if how != "remove":
        path.write_bytes(content)


def replace(rnd: Random, record: Any) -> None:
    """Replaces or removes a value somewhere inside a record."""
    while True:
        key = rnd.choice(list(record) if isinstance(record, dict) else range(len(record)))
        inside = record[key]
        if isinstance(inside, (dict, list)) and inside and rnd.random() < 0.7:
            record = inside
            continue
        if rnd.random() < 0.3:
            del record[key]
        else:
            record[key] = rnd.choice(ODD)
        return
