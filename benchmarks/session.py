"""One benchmark item: check that results are equal, time in interleaved rounds, measure memory."""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from cases import DATASETS, Case, Setting, make_case
from client import Client, PeerError
from compare import HALF, Groups, differences, restrict, tolerance, verdict
from peers import PEERS, Item

BASE = "gat_ext"
_REFERENCES = ("pyg", "dense", "dgl", BASE, "pyg-compiled")
_SMALL = 400


@dataclass(frozen=True)
class Options:
    """How to run."""

    setting: Setting
    peers: tuple[str, ...]
    pythons: dict[str, str]
    threads: int
    repeats: int
    warmup: int
    min_seconds: float
    timeout: float
    dense_limit: int
    memory: bool


@dataclass
class Row:
    """One peer in one item; ``status`` is ok, unchecked, left out, failed or wrong."""

    status: str = "ok"
    reason: str = ""
    reference: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[list[float]]] = field(default_factory=dict)
    median: dict[str, float] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int | bool] | None = None

    def stop(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason

    @property
    def running(self) -> bool:
        return self.status in ("ok", "unchecked")

    @property
    def error(self) -> float | None:
        return max(self.errors.values()) if self.errors else None


@dataclass
class Outcome:
    """One item's figures."""

    bench: str
    name: str
    title: str
    case: dict[str, Any]
    rows: dict[str, Row]
    gathers: int
    projections: int
    notes: list[str]
    limits: dict[str, list[float]] = field(default_factory=dict)

    def limit(self, key: str) -> float:
        return statistics.median(self.limits[key])

    @property
    def excess(self) -> float | None:
        """Forward of gat_ext without the projections, in units of the gather limit.

        None where the projections take so much of it that the difference would be noise.
        """
        row = self.rows.get(BASE)
        if row is None or not row.median or not self.gathers:
            return None
        own = row.median["forward"] - self.projections * self.limit("projection_forward")
        if own < row.median["forward"] / 3:
            return None
        return own / (self.gathers * self.limit("gather"))


class Session:
    """The workers of a run: one for each peer and one for the limits, kept from item to item."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.versions: dict[str, dict[str, str]] = {}
        self.missing: dict[str, str] = {}
        self._stack = ExitStack()
        self._clients: dict[str, Client] = {}
        self.folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gat-ext-bench-"))
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        for client in self._clients.values():
            client.close()
        self._stack.close()

    def start(self, name: str) -> Client:
        """A new worker for a peer (or for "limits")."""
        python = self.options.pythons.get(name, sys.executable)
        return Client(python, self.options.threads, self.options.timeout)

    def probe(self) -> None:
        """Starts the workers; finds out which peers can run, and why the others cannot."""
        say("starting the peers")
        for name in ("limits", *self.options.peers):
            try:
                self._clients[name] = self.start(name)
            except PeerError as error:
                self.missing[name] = str(error)
        for name in (peer for peer in self.options.peers if peer not in self.missing):
            try:
                self.versions[name] = self.ask(name, "probe", peer=name)
            except PeerError as error:
                self.missing[name] = str(error)

    def ask(self, name: str, op: str, **request: Any) -> Any:
        """Asks a peer's worker, started at need; a dead one is replaced for the next item."""
        if name not in self._clients:
            self._clients[name] = self.start(name)
        client = self._clients[name]
        try:
            return client.ask(op, **request)
        except PeerError:
            if not client.alive:
                self._clients.pop(name).close()
            raise


def say(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)


class ItemRun:
    """One item in a session."""

    def __init__(self, session: Session, bench: Path, name: str, item: Item) -> None:
        self.session, self.options = session, session.options
        self.bench, self.name, self.item = bench, name, item
        self.rows = {peer: Row() for peer in self.options.peers}
        self.notes: list[str] = []

    def run(self) -> Outcome:
        setting = self.options.setting
        case = self._case(setting)
        self._leave_out(case)
        self._check_small(case)
        path = self._save(case, "case")
        self._check(case, path)
        outcome = Outcome(
            bench=self.bench.stem.removeprefix("bench_"),
            name=self.name,
            title=self.item.title,
            case=_facts(case),
            rows=self.rows,
            gathers=self.item.gathers,
            projections=self.item.projections,
            notes=self.notes,
        )
        self._time(path, outcome)
        if self.options.memory:
            self._memory(path)
        for peer, row in self.rows.items():
            if row.running and (note := self.item.notes.get(PEERS[peer].family)):
                self.notes.append(f"{PEERS[peer].title}: {note}")
        return outcome

    def _case(self, setting: Setting) -> Case:
        case = make_case(setting)
        case.tensors = self.item.tensors(case, torch.Generator().manual_seed(setting.seed))
        return case

    def _save(self, case: Case, stem: str) -> str:
        path = self.session.folder / f"{stem}.pt"
        case.save(path)
        return str(path)

    def _running(self) -> list[str]:
        return [peer for peer, row in self.rows.items() if row.running]

    def _leave_out(self, case: Case) -> None:
        needed = self.item.dense_bytes(case.setting, case.num_nodes)
        for name, row in self.rows.items():
            if name in self.session.missing:
                row.stop("left out", self.session.missing[name])
            elif PEERS[name].family not in self.item.build:
                row.stop("left out", "it has no form of this operator")
            elif PEERS[name].family == "dense" and needed > self.options.dense_limit:
                row.stop(
                    "left out",
                    f"N×N scores of {case.num_nodes:,} nodes need about {needed / 2**30:,.1f} GiB; "
                    f"--dense-limit is {self.options.dense_limit / 2**30:g} GiB",
                )

    # ---- equal?

    def _check_small(self, case: Case) -> None:
        """Where N×N is too large, dense PyTorch is compared on a small graph of the same kind."""
        setting, row = self.options.setting, self.rows.get("dense")
        if row is None or row.running or setting.graph in DATASETS:
            return
        if "dense" in self.session.missing or "dense" not in self.item.build:
            return
        small = self._case(replace(setting, nodes=min(_SMALL, setting.nodes)))
        reason, row.status = row.reason, "ok"
        self._check(small, self._save(small, "small"))
        if row.running:
            row.stop("left out", f"{reason}; compared on {small.num_nodes} nodes instead")

    def _check(self, case: Case, path: str) -> None:
        """Marks the peers that differ from the reference, the first of a fixed order that runs."""
        wide = "float32" if case.setting.dtype in HALF else None
        for reference in (peer for peer in _REFERENCES if peer in self._running()):
            try:
                every, want = self._result(reference, path, wide)
                break
            except PeerError as error:
                self.rows[reference].stop("failed", str(error))
        else:
            return
        judged = [peer for peer in self._running() if peer != reference or wide]
        title = PEERS[reference].title + (f" in {wide}" if wide else "")
        if not judged and not self.rows[reference].reference:
            self.rows[reference].stop("unchecked", "no second peer to compare with")
        self.rows[reference].reference = title
        for peer in judged:
            self._judge(peer, case, path, (reference, title, wide, every, want))

    def _judge(
        self, peer: str, case: Case, path: str, truth: tuple[str, str, str | None, Groups, Any]
    ) -> None:
        reference, title, wide, every, want = truth
        row = self.rows[peer]
        say(f"{self.name}: comparing {PEERS[peer].title} with {title}, N = {case.num_nodes:,}")
        try:
            groups = self._prepare(peer, path)
            if sorted(groups) != sorted(every):
                names = [name for group in every for name in group]
                tied = replace(case, tensors=restrict(case.tensors, groups, names))
                path = self._save(tied, "restricted")
                _, want = self._result(reference, path, wide)
            groups, got = self._result(peer, path)
        except PeerError as error:
            row.stop("failed", str(error))
            return
        errors = differences(got, want, groups)
        row.reference = title
        row.errors = {name: max(value, row.errors.get(name, 0.0)) for name, value in errors.items()}
        limit = tolerance(case.setting.dtype, peer)
        if (sentence := verdict(errors, limit, title)) is not None:
            row.stop("wrong", f"{sentence} (N = {case.num_nodes:,})")

    def _prepare(
        self, peer: str, path: str, dtype: str | None = None, dropout: float = 0.0
    ) -> Groups:
        request = {"peer": peer, "bench": str(self.bench), "item": self.name, "case": path}
        return self.session.ask(peer, "prepare", **request, dtype=dtype, dropout=dropout)

    def _result(self, peer: str, path: str, dtype: str | None = None) -> tuple[Groups, Any]:
        groups = self._prepare(peer, path, dtype)
        target = self.session.folder / "result.pt"
        self.session.ask(peer, "result", path=str(target))
        return groups, torch.load(target, weights_only=True)

    # ---- how fast, and how large?

    @property
    def _dropout(self) -> float:
        asked = self.options.setting.dropout
        return self.item.dropout if asked is None else asked

    def _time(self, path: str, outcome: Outcome) -> None:
        self.session.ask("limits", "limits", case=path)
        self.session.ask("limits", "limits_sample")
        for peer in self._running():
            say(f"{self.name}: warming up {PEERS[peer].title}")
            try:
                self._prepare(peer, path, dropout=self._dropout)
                for _ in range(self.options.warmup):
                    self.session.ask(peer, "sample", min_seconds=0.0)
            except PeerError as error:
                self.rows[peer].stop("failed", str(error))
        for index in range(self.options.repeats):
            say(f"{self.name}: round {index + 1} of {self.options.repeats}")
            self._round(index, outcome)
        for peer in self._running():
            row = self.rows[peer]
            row.median = {part: statistics.median(_rounds(row, part)) for part in row.samples}
            row.ratio = _ratio(row, self.rows.get(BASE))

    def _round(self, index: int, outcome: Outcome) -> None:
        """Every peer once, from a first that changes with the round, and the limits."""
        running = self._running()
        turn = index % len(running) if running else 0
        for peer in running[turn:] + running[:turn]:
            try:
                samples = self.session.ask(peer, "sample", min_seconds=self.options.min_seconds)
            except PeerError as error:
                self.rows[peer].stop("failed", str(error))
                continue
            for part, values in samples.items():
                self.rows[peer].samples.setdefault(part, []).append(values)
        for key, value in self.session.ask("limits", "limits_sample").items():
            outcome.limits.setdefault(key, []).append(value)

    def _memory(self, path: str) -> None:
        """Peak of one step, in a new process for each peer: an old one's peak is of older work."""
        for peer in self._running():
            say(f"{self.name}: peak memory of {PEERS[peer].title}")
            request = {"peer": peer, "bench": str(self.bench), "item": self.name, "case": path}
            try:
                with self.session.start(peer) as client:
                    client.ask("prepare", **request, dropout=self._dropout)
                    self.rows[peer].memory = client.ask("memory")
            except PeerError as error:
                self.notes.append(f"{PEERS[peer].title}: peak memory not measured: {error}")


def _rounds(row: Row, part: str) -> list[float]:
    return [statistics.median(values) for values in row.samples[part]]


def _ratio(row: Row, base: Row | None) -> dict[str, float]:
    """Median over the rounds of this peer's time over gat_ext's in the same round."""
    if base is None or not base.running:
        return {}
    ratio = {}
    for part in ("forward", "backward", "total"):
        pairs = zip(_rounds(row, part), _rounds(base, part), strict=True)
        ratio[part] = statistics.median(own / other for own, other in pairs)
    return ratio


def _facts(case: Case) -> dict[str, Any]:
    degrees = torch.bincount(case.edge_index[1], minlength=case.num_nodes)
    return {
        "graph": case.setting.graph,
        "num_nodes": case.num_nodes,
        "num_edges": case.num_edges,
        "median_in_degree": int(degrees.median()),
        "max_in_degree": int(degrees.max()),
        "tensors": {name: list(t.shape) for name, t in case.tensors.items()},
    }
