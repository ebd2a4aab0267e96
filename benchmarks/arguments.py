"""The command line of ``run.py``."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from cases import DTYPES, Setting, names
from peers import PEERS
from session import Options

_SETTING = (
    "graph",
    "nodes",
    "degree",
    "heads",
    "channels",
    "dtype",
    "dropout",
    "seed",
    "shuffle",
    "root",
)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Every option; what a graph and a layer look like, who runs, and how it is measured."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="benchmarks or items; default: all")
    _add_setting(parser)
    _add_peers(parser)
    _add_measurement(parser)
    return parser


def _add_setting(parser: argparse.ArgumentParser) -> None:
    default, add = Setting(), parser.add_argument
    add("--graph", choices=names(), default=default.graph, help="(%(default)s)")
    add("--nodes", type=_count, default=default.nodes, help="of a generated graph (%(default)s)")
    add(
        "--degree",
        type=_count,
        default=default.degree,
        help="edges a node, beside its loop; a mesh has its own (%(default)s)",
    )
    add("--heads", type=_count, default=default.heads, help="attention heads (%(default)s)")
    add("--channels", type=_count, default=default.channels, help="of a head (%(default)s)")
    add("--dtype", choices=list(DTYPES), default=default.dtype, help="(%(default)s)")
    add("--dropout", type=_share, help="on a layer's attention; default: 0, and 0.6 for an epoch")
    add("--shuffle", action="store_true", help="renumber the nodes at random")
    add("--root", help="folder of the data sets' files; default: downloaded once")
    add("--seed", type=int, default=default.seed, help="(%(default)s)")


def _add_peers(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    peers = ", ".join(PEERS)
    add("--peers", nargs="+", default=list(PEERS), metavar="PEER", help=f"{peers}; default: all")
    add(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PATH",
        help="the interpreter that runs a peer; may be given once for each",
    )
    add(
        "--threads",
        type=_count,
        default=len(os.sched_getaffinity(0)),
        help="of every peer (%(default)s)",
    )
    add(
        "--dense-limit",
        type=float,
        default=2.0,
        metavar="GIB",
        help="memory that dense N×N attention may take; beyond, it is left out (%(default)s)",
    )


def _add_measurement(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--repeats", type=_count, default=5, help="rounds (%(default)s)")
    add("--warmup", type=_count, default=1, help="steps before the first round (%(default)s)")
    add(
        "--min-seconds",
        type=float,
        default=0.2,
        help="a peer repeats its step for so long in each round (%(default)s)",
    )
    add("--no-memory", action="store_true", help="do not measure peak memory")
    add("--timeout", type=float, default=1800.0, help="seconds for one answer (%(default)s)")
    add(
        "--out",
        type=Path,
        default=Path("runs/benchmarks"),
        help="folder for results.json and the charts (%(default)s)",
    )


def parse_options(args: argparse.Namespace) -> Options:
    """The options of a run.

    Raises:
        ValueError: an unknown peer, or --python in another form than PEER=PATH.
    """
    for peer in args.peers:
        if peer not in PEERS:
            raise ValueError(unknown("peer", peer, list(PEERS)))
    return Options(
        setting=Setting(**{name: getattr(args, name) for name in _SETTING}),
        peers=tuple(peer for peer in PEERS if peer in args.peers),
        pythons=dict(_interpreter(pair) for pair in args.python),
        threads=args.threads,
        repeats=args.repeats,
        warmup=args.warmup,
        min_seconds=args.min_seconds,
        timeout=args.timeout,
        dense_limit=int(args.dense_limit * 2**30),
        memory=not args.no_memory,
    )


def unknown(kind: str, name: str, choices: Sequence[str]) -> str:
    """The sentence for a name that is none of the choices."""
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {kind} '{name}': {hint}choose from {', '.join(choices)}"


def _interpreter(pair: str) -> tuple[str, str]:
    peer, equals, path = pair.partition("=")
    if not equals or not path:
        raise ValueError(f"--python takes PEER=PATH, not '{pair}'")
    if peer not in PEERS:
        raise ValueError(unknown("peer", peer, list(PEERS)))
    return peer, path


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not in [0, 1)")
    return value
