"""The attention operators over one parameter at a time, beside the limit of the machine.

    python benchmarks/run.py sweeps --out DIR          everything: 12 minutes on two cores
    python benchmarks/bench_sweeps.py --only dtype skew
    python benchmarks/bench_sweeps.py --tiny           the same program on a hundred nodes

The standard case has 100,000 nodes, 2.1 million edges (uniform, self-loops among them) and 4 heads
of 32 float32 features, on two threads. Sweeps change its threads, dtype, degree distribution, number
of nodes, degree, features, heads; others number a mesh in several ways, take features beyond the
cache, or grow the graph to 60 million edges, on which a two-layer GAT trains as well. Results are
first compared with a float64 reference, on a small graph and on a part of the one that is timed.
Each time stands beside a bare gather of the same rows over the same edges, taken in the same rounds
and process. The folder of --out gets results.json, sweeps.png and targets.md. Exit status 1 where a
result is wrong or a point failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# The package built in place; an installed one comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

ITEMS: dict[str, Any] = {}  # No peers, hence nothing for run.py to compare.
ON_REQUEST = True  # Too long for a run of everything.


def run_alone(out: Path) -> int:
    """What ``run.py sweeps`` does."""
    return main(["--out", str(out / "sweeps")])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="SWEEP", help="only these; 'memory' and 'epoch' among them")
    add("--tiny", action="store_true", help="graphs of a hundred nodes, to try the program")
    add("--out", type=Path, default=Path("runs/sweeps"), help="folder (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sweeps; the exit status."""
    from arguments import unknown
    from sweep_plan import full, full_epoch, tiny, tiny_epoch

    parser = _parser()
    args = parser.parse_args(argv)
    sweeps = tiny() if args.tiny else full()
    names = [*(sweep.name for sweep in sweeps), "memory", "epoch"]
    for name in args.only or ():
        if name not in names:
            parser.error(unknown("sweep", name, names))
    chosen = args.only or names
    args.out.mkdir(parents=True, exist_ok=True)

    import torch
    from measure import machine
    from report import machine_lines
    from sweep_results import Record
    from sweep_session import Session

    standard = next(sweep for sweep in sweeps if sweep.name == "threads").points["2"]
    config = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["benchmarks/bench_sweeps.py", *(sys.argv[1:] if argv is None else argv)],
        "machine": machine(),
        "torch": torch.__version__,
    }
    print(machine_lines(config["machine"]))
    if args.tiny:
        print("tiny graphs try the program: their times, and the targets by them, mean nothing")
    session = Session(Record(config, standard), args.out, 0.0 if args.tiny else 0.05)
    try:
        for sweep in sweeps:
            if sweep.name in chosen:
                session.sweep(sweep)
        if "memory" in chosen:
            session.memory(standard)
        if "epoch" in chosen:
            session.epoch(tiny_epoch() if args.tiny else full_epoch())
    except KeyboardInterrupt:
        print(f"stopped; {args.out / 'results.json'} has what was done", file=sys.stderr)
        return 130
    return _finish(session.record, sweeps, args.out)


def _finish(record: Any, sweeps: Any, out: Path) -> int:
    """Judges, draws, and says where everything is."""
    from dataclasses import asdict

    from sweep_plots import write_png
    from sweep_results import LEGEND
    from sweep_targets import judge, table

    verdicts = judge(record)
    record.targets = [asdict(verdict) for verdict in verdicts]
    record.write(out / "results.json")
    (out / "targets.md").write_text(table(verdicts) + "\n")
    print(f"\n{LEGEND}\n\n{table(verdicts)}\n\nfigures: {out / 'results.json'}")
    try:
        if any(row.timed for row in record.rows):
            print(f"chart: {write_png(out, record, sweeps)}")
    except ImportError as error:
        print(f"no chart: {error}")
    for problem in record.problems():
        print(f"ERROR {problem}", file=sys.stderr)
    return 1 if record.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
