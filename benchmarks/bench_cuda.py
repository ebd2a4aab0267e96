"""The operators and layers on a GPU: checked against float64, then timed beside other libraries.

    python benchmarks/bench_cuda.py                    every row that a target names: 5 minutes
    python benchmarks/bench_cuda.py --full             every graph, score, shape and dtype
    python benchmarks/bench_cuda.py --graphs reddit --scores dot --peers
    python benchmarks/bench_cuda.py --device cpu --tiny      the same code without a GPU

Times are medians by CUDA events over sets of inputs that together exceed the L2 cache. Beside each
stand the bytes it has to move as a share of what a large copy moves, and the memory it adds. Peers
are dense PyTorch where N×N fits, and PyG's operations, eager and compiled. Graphs are drawn on the
device with the sizes of public ones (cuda_cases.py). The folder of --out gets cuda.md with all
tables, cuda.json, digest.txt (a line a row) and targets.md. Exit status 1 where a result of gat_ext
is wrong or it failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

# The package built in place; an installed one comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

ITEMS: dict[str, Any] = {}  # Nothing for the processes of run.py: this benchmark runs in its own.
NEEDS_GPU = (
    "bench_cuda needs a GPU, and torch sees none here; "
    "bench_cuda.py --device cpu --tiny runs the same code without one"
)
_QUICK_BUDGET = 280.0


def run_alone(out: Path) -> int:
    """What ``run.py cuda`` does: the quick run where there is a GPU, else one line."""
    if not torch.cuda.is_available():
        print(NEEDS_GPU)
        return 0
    return main(["--out", str(out / "cuda")])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the default")
    size.add_argument("--full", action="store_true", help="everything; no limit of time")
    add("--device", default="cuda", help="(%(default)s)")
    add("--tiny", action="store_true", help="graphs of a hundred nodes, to try the program")
    add("--graphs", nargs="+", metavar="GRAPH", help="only these")
    add("--scores", nargs="+", metavar="SCORE", help="only these; layers are 'layer gat', ...")
    add("--dtypes", nargs="+", metavar="DTYPE", help="only these")
    add("--peers", nargs="*", metavar="PEER", help="only these; none: gat_ext alone")
    add("--seconds", type=float, default=None, help="of samples for a figure (0.25; full: 1)")
    add(
        "--budget",
        type=float,
        default=None,
        help=f"seconds for all ({_QUICK_BUDGET:.0f}; full: none)",
    )
    add("--peer-limit", type=float, default=60.0, help="seconds for a peer's figure (%(default)s)")
    add("--out", type=Path, default=Path("runs/cuda"), help="folder (%(default)s)")
    return parser


def _refuse_unknown(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from arguments import unknown
    from cuda_operators import PEERS
    from cuda_plan import full

    rows = full()
    choices = {
        "graphs": ("graph", {row.graph for row in rows}),
        "scores": ("score", {row.item for row in rows}),
        "dtypes": ("dtype", {row.dtype for row in rows}),
        "peers": ("peer", set(PEERS)),
    }
    for option, (kind, known) in choices.items():
        for name in getattr(args, option) or ():
            if name not in known:
                parser.error(unknown(kind, name, sorted(known)))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        print(NEEDS_GPU, file=sys.stderr)
        return 2
    _refuse_unknown(parser, args)
    from cuda_plan import full, only, quick
    from cuda_results import targets_table
    from cuda_session import Options, Session

    rows = only(full() if args.full else quick(), args.graphs, args.scores, args.dtypes, args.peers)
    if not rows:
        parser.error("no row is left of these graphs, scores and dtypes; --full has more")
    defaults = (1.0, None) if args.full else (0.25, _QUICK_BUDGET)
    options = Options(
        device=args.device,
        tiny=args.tiny,
        seconds=defaults[0] if args.seconds is None else args.seconds,
        budget=defaults[1] if args.budget is None else args.budget,
        peer_limit=args.peer_limit,
        out=args.out,
    )
    record = Session(options).run(rows)
    print(f"\n{targets_table(record)}\n\nfigures: {args.out / 'cuda.md'}, {args.out / 'cuda.json'}")
    for note in record.notes:
        print(f"note: {note}")
    for problem in record.problems():
        print(f"ERROR {problem}", file=sys.stderr)
    return 1 if record.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
