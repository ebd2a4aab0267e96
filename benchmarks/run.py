"""Compares results, times and memory of gat_ext with those of other libraries.

    python benchmarks/run.py                          all but sweeps: 100,000 nodes, 2.1 M edges
    python benchmarks/run.py layers --graph mesh      one benchmark, on another graph
    python benchmarks/run.py gat agnn --graph cora    some items, on a data set
    python benchmarks/run.py sweeps                   our operators, one parameter at a time
    python benchmarks/run.py operators --device cuda --graph arxiv-size
    python benchmarks/run.py --python dgl=PATH        DGL in another environment's interpreter

Benchmarks are the files ``bench_*.py`` of this folder (README.md says how to add one). The exit
status is 1 if a result is wrong or gat_ext failed.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

# For a package built in place; an installed one has priority.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import report
import torch
from cases import DTYPES, NAMES, Setting
from peers import PEERS, Item
from session import Options, Session
from worker import limit_memory, load_bench

HERE = Path(__file__).resolve().parent
_SETTING = ("graph", "nodes", "degree", "heads", "channels", "dtype", "dropout", "seed", "shuffle",
            "order", "threads", "device", "root", "edge_dim")  # fmt: skip

Benches = dict[str, tuple[Path, ModuleType]]


def discover(folder: Path) -> Benches:
    """The benchmarks of a folder by name; ``bench_layers.py`` is "layers"."""
    files = sorted(folder.glob("bench_*.py"))
    return {path.stem.removeprefix("bench_"): (path, load_bench(path)) for path in files}


def items_of(module: ModuleType) -> dict[str, Item]:
    """The items of a benchmark that ``run.py`` compares."""
    return getattr(module, "ITEMS", {})


def refuse_unknown(names: Sequence[str], benches: Benches) -> None:
    """Raises ValueError for a name that is neither a benchmark nor an item."""
    choices = [*benches, *(item for _, module in benches.values() for item in items_of(module))]
    for name in names:
        if name not in choices:
            raise ValueError(_unknown("benchmark", name, choices))


def shown_command(arguments: Sequence[str]) -> list[str]:
    """The command line of the same measurement, without the paths of this machine."""
    shown, values = [], iter(arguments)
    for value in values:
        if value == "--out":
            next(values, None)
        elif value == "--root":
            shown += [value, "FOLDER"] if next(values, None) else []
        else:
            peer, equals, _ = value.partition("=")
            shown.append(f"{peer}=PYTHON" if equals and peer in PEERS else value)
    return ["benchmarks/run.py", *shown]


def run(
    names: Sequence[str],
    benches: Benches,
    session: Session,
    out: Path,
    arguments: Sequence[str] = (),
) -> list[report.Row]:
    """Runs benchmarks and items by name, prints each table, and updates the file ``out``."""
    rows: list[report.Row] = []
    config = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shown_command(arguments),
        "machine": report.machine(),
        "versions": session.versions,
        "options": {
            **asdict(session.options),
            "pythons": dict.fromkeys(session.options.pythons, "PYTHON"),
        },
    }
    if torch.cuda.is_available():
        config["gpu"] = torch.cuda.get_device_name()
    print(report.machine_lines(config["machine"]))

    def keep(found: list[report.Row]) -> None:
        rows.extend(found)
        report.show(found)
        report.write_json(out, config, rows)

    for peer, reason in session.missing.items():
        print(f"{PEERS[peer].title} left out: {reason}")
    try:
        for bench, (path, module) in benches.items():
            for name, item in items_of(module).items():
                implied = not item.on_request and (not names or bench in names)
                if implied or name in names:
                    keep(session.compare(path, name, item))
            wanted = bench in names or (not names and not getattr(module, "ON_REQUEST", False))
            if hasattr(module, "measure") and wanted:
                for group in module.measure(session):
                    keep(group)
    except KeyboardInterrupt:
        print(f"stopped; {out} has the results so far", file=sys.stderr)
    return rows


def main(argv: Sequence[str] | None = None, folder: Path = HERE, *, limited: bool = False) -> int:
    """Runs the benchmarks of a folder; the exit status.

    Args:
        argv: the command line; None: that of the process.
        folder: folder of the benchmarks.
        limited: limit the memory of this process, if it uses the CPU, so that a shortage raises.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        options = parse_options(args)
        benches = discover(folder)
        refuse_unknown(args.names, benches)
    except ValueError as error:
        parser.error(str(error))
    if limited and options.setting.device == "cpu":
        limit_memory()
    out = args.out if args.out.suffix == ".json" else args.out / "results.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = run(args.names, benches, Session(options), out, sys.argv[1:] if argv is None else argv)
    print(f"\n{report.LEGEND}\n\nfigures: {out}")
    for line in report.problems(rows):
        print(f"ERROR {line}", file=sys.stderr)
    return 1 if report.problems(rows) else 0


# ---- command line


def make_parser() -> argparse.ArgumentParser:
    """Options of graph, layer, peers and measurement."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default, add = Setting(), parser.add_argument
    add("names", nargs="*", help="benchmarks or items; default: all")
    add("--graph", choices=NAMES, default=default.graph, help="(%(default)s)")
    add("--nodes", type=_count, default=default.nodes, help="of a generated graph (%(default)s)")
    add("--degree", type=_count, default=default.degree,
        help="edges per node, beside its self-loop; a mesh has its own (%(default)s)")  # fmt: skip
    add("--heads", type=_count, default=default.heads, help="attention heads (%(default)s)")
    add("--channels", type=_count, default=default.channels, help="per head (%(default)s)")
    add("--edge-dim", type=_count, default=default.edge_dim,
        help="features of an edge, where edges have some (%(default)s)")  # fmt: skip
    add("--dtype", choices=list(DTYPES), default=default.dtype, help="(%(default)s)")
    add("--dropout", type=float, help="on the attention; default: 0, and 0.6 for an epoch")
    add("--shuffle", action="store_true", help="renumber the nodes at random")
    add("--order", default="", help="then renumber them by this method of Graph.reorder")
    add("--device", choices=("cpu", "cuda"), default=default.device, help="(%(default)s)")
    add("--root", help="folder of the data sets' files; default: downloaded once")
    add("--seed", type=int, default=default.seed, help="(%(default)s)")
    add("--peers", nargs="+", metavar="PEER", help=f"of {', '.join(PEERS)}; default: all")
    add("--python", action="append", default=[], metavar="PEER=PATH",
        help="the interpreter that runs a peer; may be given once for each")  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    add("--threads", type=_count, default=cores, help="of every peer (%(default)s)")
    add("--dense-limit", type=float, default=2.0, metavar="GIB",
        help="memory that dense N×N attention may take (%(default)s)")  # fmt: skip
    add("--repeats", type=_count, default=5, help="rounds (%(default)s)")
    add("--min-seconds", type=float, default=0.2,
        help="a peer repeats its step for so long in each round (%(default)s)")  # fmt: skip
    add("--no-memory", action="store_true", help="do not measure peak memory")
    add("--timeout", type=float, default=1800.0, help="seconds for one answer (%(default)s)")
    add("--out", type=Path, default=Path("runs/benchmarks"),
        help="a .json file, or a folder for results.json (%(default)s)")  # fmt: skip
    return parser


def parse_options(args: argparse.Namespace) -> Options:
    """The options of a run.

    Raises:
        ValueError: an unknown peer, --python not of the form PEER=PATH, or a missing device.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU, and torch sees none here")
    pythons = {}
    for pair in args.python:
        peer, equals, path = pair.partition("=")
        if not equals or not path:
            raise ValueError(f"--python takes PEER=PATH, not '{pair}'")
        pythons[peer] = path
    for peer in (*(args.peers or ()), *pythons):
        if peer not in PEERS:
            raise ValueError(_unknown("peer", peer, list(PEERS)))
    default = [n for n, peer in PEERS.items() if args.device == "cuda" or not peer.needs_gpu]
    return Options(
        setting=Setting(**{name: getattr(args, name) for name in _SETTING}),
        peers=tuple(peer for peer in PEERS if peer in (args.peers or default)),
        pythons=pythons,
        rounds=args.repeats,
        min_seconds=args.min_seconds,
        timeout=args.timeout,
        dense_limit=int(args.dense_limit * 2**30),
        memory=not args.no_memory,
    )


def _unknown(kind: str, name: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {kind} '{name}': {hint}choose from {', '.join(choices)}"


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main(limited=True))
