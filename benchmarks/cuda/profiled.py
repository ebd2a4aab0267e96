"""One forward and backward of an attention, for a profiler: ncu sees these launches only.

    ncu --profile-from-start off python benchmarks/cuda/profiled.py gat_attention --graph arxiv-size
    python benchmarks/cuda/profiled.py --read profile.csv

The second form prints a table of what ``ncu --import FILE --csv --page raw`` wrote.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

# For a package built in place; an installed one has priority.
sys.path.append(str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import DTYPES, SIZES, Setting, make_case

from gat_ext import Graph, functional

ATTENTIONS = ("gat_attention", "gatv2_attention", "dot_attention", "cosine_attention")
# What is printed of a kernel: the first column of ncu whose name begins so.
COLUMNS = {
    "time": "gpu__time_duration.sum",
    "issue active": "smsp__issue_active.avg",
    "waits for loads": "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active",
    "warps active": "sm__warps_active.avg.pct",
    "L2": "lts__t_sectors.avg.pct",
    "DRAM": "dram__throughput.avg.pct",
    "instructions": "smsp__inst_executed.sum",
    "registers": "launch__registers_per_thread",
}


def inputs(name: str, nodes: int, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    """The arguments of an attention, one head of 128 channels, with gradients."""
    rows, terms = (nodes, 1, 128), (nodes, 1)
    shapes: dict[str, tuple[int, ...]] = {
        "gat_attention": {"value": rows, "dst_term": terms, "src_term": terms},
        "gatv2_attention": {"query": rows, "key": rows, "att": (1, 128)},
        "dot_attention": {"query": rows, "key": rows, "value": rows},
        "cosine_attention": {"query": rows, "key": rows, "value": rows},
    }[name]
    return {
        key: torch.randn(shape, device=device).to(dtype).requires_grad_()
        for key, shape in shapes.items()
    }


def profile(name: str, graph: str, dtype: str, device: str) -> None:
    """Runs the attention twice; the profiler sees the second time."""
    setting = Setting(graph=graph, nodes=300, heads=1, channels=128, dtype=dtype, device=device)
    case = make_case(setting)
    of_case = Graph(case.edge_index, num_nodes=case.num_nodes)
    tensors = inputs(name, case.num_nodes, DTYPES[dtype], device)

    def step() -> None:
        out = getattr(functional, name)(of_case, **tensors)
        torch.autograd.grad(out, list(tensors.values()), torch.ones_like(out))

    step()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def read(text: str) -> list[dict[str, str]]:
    """The kernels of a CSV of ncu: their names, and the values and units of ``COLUMNS``.

    Raises:
        ValueError: there is no header, so ncu wrote something else.
    """
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        raise ValueError(f"no CSV of ncu: {text[:200]!r}")
    header, units, *rows = csv.reader(lines[begin:])
    out = []
    for row in rows:
        found = {"kernel": row[header.index("Kernel Name")]}
        for title, prefix in COLUMNS.items():
            column = next((i for i, h in enumerate(header) if h.startswith(prefix)), None)
            found[title] = "-" if column is None else f"{row[column]} {units[column]}".strip()
        out.append(found)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Profiles, or reads a profile."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=ATTENTIONS, default=ATTENTIONS[0])
    parser.add_argument("--graph", choices=("uniform", *SIZES), default="arxiv-size")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="(%(default)s)")
    parser.add_argument("--device", default="cuda", help="(%(default)s)")
    parser.add_argument("--read", type=Path, metavar="CSV", help="print a profile instead")
    args = parser.parse_args(argv)
    if args.read is None:
        profile(args.name, args.graph, args.dtype, args.device)
        return 0
    for kernel in read(args.read.read_text(errors="replace")):
        values = (f"{title} {value}" for title, value in kernel.items() if title != "kernel")
        print(f"{kernel['kernel'][:120]}\n    {', '.join(values)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
