"""Compares gat_ext with other libraries: are results equal, how fast, how much memory?

    python benchmarks/run.py                          all but sweeps: 100,000 nodes, 2.1 million edges
    python benchmarks/run.py layers --graph mesh      one benchmark, on another graph
    python benchmarks/run.py gat agnn --graph cora    some items, on a data set
    python benchmarks/run.py sweeps                   our operators, one parameter at a time
    python benchmarks/run.py --python dgl=PATH        DGL under another environment's interpreter

Benchmarks are the files ``bench_*.py`` of this folder. Each peer runs in a process of its own;
rounds visit every peer in turn, so a ratio compares times taken side by side. Exit status 1 where a
result is wrong or gat_ext failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# The package built in place; an installed one comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import report
from arguments import make_parser, parse_options, unknown
from measure import machine
from peers import PEERS, Item
from plots import write_pngs
from session import BASE, ItemRun, Options, Outcome, Session
from worker import load_bench

HERE = Path(__file__).resolve().parent
Benches = dict[str, tuple[Path, dict[str, Item]]]


def discover(folder: Path) -> Benches:
    """The benchmarks of a folder by name, each with its items; ``bench_layers.py`` is "layers"."""
    files = sorted(folder.glob("bench_*.py"))
    return {path.stem.removeprefix("bench_"): (path, load_bench(path).ITEMS) for path in files}


def select(names: Sequence[str], benches: Benches) -> list[tuple[Path, str, Item]]:
    """The items that the names mean: a benchmark's, one item, or all where there is no name.

    Raises:
        ValueError: a name is neither a benchmark nor an item.
    """
    choices = [*benches, *(item for _, items in benches.values() for item in items)]
    for name in names:
        if name not in choices:
            raise ValueError(unknown("benchmark", name, choices))
    return [
        (path, name, item)
        for bench, (path, items) in benches.items()
        for name, item in items.items()
        if not names or bench in names or name in names
    ]


def main(argv: Sequence[str] | None = None, folder: Path = HERE) -> int:
    """Runs the benchmarks of a folder; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(__doc__)
    args = parser.parse_args(arguments)
    try:
        options = parse_options(args)
        benches = discover(folder)
        items = select(args.names, benches)
    except ValueError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    status = 0
    if items:
        try:
            outcomes = run(items, options, arguments, args.out)
        except KeyboardInterrupt:
            print(f"stopped; {args.out / 'results.json'} has what was done", file=sys.stderr)
            return 130
        status = finish(args.out, outcomes)
    return max([status, *run_alone(args.names, benches, args.out)])


def run_alone(names: Sequence[str], benches: Benches, out: Path) -> list[int]:
    """Runs the benchmarks that have no items but ``run_alone(out)``: their exit statuses.

    They have no peers, or a device that those cannot share. One with ``ON_REQUEST`` runs only when
    named.
    """
    statuses = []
    for name, (path, _) in benches.items():
        module = load_bench(path)
        if hasattr(module, "run_alone") and (
            name in names or (not names and not getattr(module, "ON_REQUEST", False))
        ):
            statuses.append(module.run_alone(out))
    return statuses


def run(
    items: list[tuple[Path, str, Item]], options: Options, arguments: list[str], out: Path
) -> dict[str, Outcome]:
    """Runs the items, shows each, and keeps the figures of those done so far in ``out``."""
    config: dict[str, Any] = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["benchmarks/run.py", *arguments],
        "machine": machine(),
        **asdict(options),
    }
    print(report.machine_lines(config["machine"]))
    outcomes: dict[str, Outcome] = {}
    with Session(options) as session:
        session.probe()
        config["versions"] = session.versions
        for name, reason in session.missing.items():
            print(f"{PEERS[name].title} left out: {reason}")
        for path, name, item in items:
            outcomes[name] = ItemRun(session, path, name, item).run()
            report.show(outcomes[name], config)
            report.write_json(out / "results.json", config, outcomes)
    return outcomes


def finish(out: Path, outcomes: dict[str, Outcome]) -> int:
    """Draws, says where everything is, and judges."""
    print(f"\n{report.LEGEND}\n\nfigures: {out / 'results.json'}")
    try:
        for path in write_pngs(out, outcomes):
            print(f"chart: {path}")
    except ImportError as error:
        print(f"no chart: {error}")
    bad = [
        f"{item}: {PEERS[name].title} {row.status}: {row.reason}"
        for item, outcome in outcomes.items()
        for name, row in outcome.rows.items()
        if row.status == "wrong" or (name == BASE and row.status == "failed")
    ]
    for line in bad:
        print(f"ERROR {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
