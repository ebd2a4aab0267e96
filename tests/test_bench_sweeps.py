"""The sweeps on graphs of a hundred nodes: a run from end to end, its checks, graphs, targets."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


def point_of(nodes=60, edges=300, graph=None, **changes):
    from sweep_graphs import GraphSpec
    from sweep_plan import Point

    spec = GraphSpec(nodes=nodes, edges=edges, **(graph or {}))
    defaults = {"heads": 2, "channels": 4, "threads": 1, "operators": ("gat_attention",)}
    return Point(graph=spec, **{**defaults, **changes})


def record_of(*rows, **changes):
    from sweep_results import Record

    return Record({}, point_of(), list(rows), **changes)


# ---- the whole way


def test_a_tiny_run_prints_tables_and_writes_json_and_a_chart(tmp_path, capsys):
    import bench_sweeps
    from sweep_plan import ATTENTIONS

    pytest.importorskip("matplotlib")
    only = ["--only", "threads", "dtype", "epoch"]
    assert bench_sweeps.main(["--tiny", *only, "--out", str(tmp_path)]) == 0

    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "results.json").read_text())
    rows = record["rows"]
    assert [r["label"] for r in rows[::4]] == [
        "1",
        "2",
        "float32",
        "float64",
        "bfloat16",
        "float16",
    ]
    assert {r["operator"] for r in rows} == set(ATTENTIONS)
    for r in rows:
        assert r["status"] == "ok" and r["graph"]["num_edges"] == 210
        assert r["error"] < {"float64": 1e-12, "float32": 1e-5}.get(r["point"]["dtype"], 0.02)
        assert {len(values) for values in r["samples"].values()} == {2}
        times = r["milliseconds"]
        assert 0 < times["forward"] < times["total"] and times["gather"] > 0
        assert r["ns_per_edge"]["total"] == pytest.approx(1e6 * times["total"] / 210)
    epoch = record["epoch"]
    assert epoch["status"] == "ok" and epoch["num_edges"] == 6000 and epoch["error"] < 1e-4
    assert epoch["epoch_seconds"] > 0 and epoch["peak"] > 1e8
    verdicts = {t["name"]: t["verdict"] for t in record["targets"]}
    assert verdicts["peak memory of training on the largest graph"] == "met"
    assert verdicts["memory of a step beyond inputs and outputs"] == "not measured"
    assert verdicts["one thread over two, forward"] == "no bound"
    assert (tmp_path / "sweeps.png").read_bytes().startswith(b"\x89PNG")
    targets = (tmp_path / "targets.md").read_text()
    for text in ("| dtype    | operator", "| bfloat16 | cosine", "training epoch of", targets):
        assert text in shown


def test_points_that_cannot_run_leave_the_others(tmp_path, capsys):
    from sweep_plan import Sweep
    from sweep_session import Session

    points = {
        "good": point_of(),
        "no such order": point_of(graph={"order": "alphabet"}),
        "too few edges": point_of(edges=59),
        "too large": point_of(nodes=10**11, edges=10**12),
    }
    session = Session(record_of(), tmp_path, min_seconds=0.0)
    session.sweep(Sweep("mixed", "graph", points, seconds=0.0))
    session.sweep(Sweep("growth", "edges", {"300": points["good"]}, 0.0, apart=True, least=1))
    rows = session.record.rows
    good, order, few, large, alone = rows
    assert [row.status for row in rows] == ["ok", "left out", "failed", "left out", "ok"]
    assert len(good.samples["total"]) == 2 and len(alone.samples["total"]) == 1
    assert "method is 'alphabet'" in order.note and "59 edges were asked for 60" in few.note
    assert "are free" in large.note and not large.timed
    assert session.record.problems() == [f"mixed too few edges gat failed: {few.note}"]
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 5
    assert "- no such order: left out: method is" in capsys.readouterr().out


def test_a_process_that_ends_is_told():
    from sweep_session import PointError, Process

    with Process() as process:
        assert process.call(abs, -3) == 3
        with pytest.raises(PointError, match="ValueError: invalid literal") as caught:
            process.call(int, "x")
        assert caught.value.status == "failed"
        # More address space than any machine has.
        with pytest.raises(PointError, match="not enough memory") as caught:
            process.call(torch.empty, 2**50)
        assert caught.value.status == "left out"
        with pytest.raises(PointError, match="its process ended"):
            process.call(os._exit, 3)


def test_memory_of_a_step_is_measured_beyond_inputs_and_outputs(tmp_path, capsys):
    from sweep_session import Session

    # Edge softmax weights or their gradients, E·H floats, are the most that should be added.
    point = point_of(nodes=2000, edges=1_000_000, heads=4, channels=1)
    session = Session(record_of(), tmp_path, min_seconds=0.0)
    session.memory(point)
    found = session.record.memory["gat_attention"]
    assert found["status"] == "ok" and found["ratio"] == found["extra"] / 16e6
    assert 0 < found["ratio"] < 10
    assert "| gat_attention    | ok" in capsys.readouterr().out


def test_a_typo_names_the_choices(capsys):
    import bench_sweeps

    with pytest.raises(SystemExit):
        bench_sweeps.main(["--only", "treads"])
    assert "unknown sweep 'treads': did you mean 'threads'" in capsys.readouterr().err


def test_sweeps_run_only_when_named(tmp_path):
    import run

    for name, request in (("alone", False), ("long", True)):
        (tmp_path / f"bench_only_{name}.py").write_text(
            f"ITEMS = {{}}\nON_REQUEST = {request}\ndef run_alone(out): return {int(request)}\n"
        )
    benches = run.discover(tmp_path)
    assert run.run_alone([], benches, tmp_path) == [0]
    assert run.run_alone(["only_long"], benches, tmp_path) == [1]
    assert run.load_bench(FOLDER / "bench_sweeps.py").ON_REQUEST


# ---- the check


SPOILS = {
    "an output": lambda out, i: out + 0.01 * torch.eye(len(out))[i, :, None, None],
    "a gradient": lambda out, i: out + (0.1 * (out[i] - out[i].detach())).sum(),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("nodes", [60, 6000])
def test_a_wrong_result_is_not_timed(monkeypatch, spoil, nodes):
    import sweep_worker
    from sweep_graphs import make_graph

    point = point_of(nodes=nodes, edges=20 * nodes)
    part = sweep_worker._take_part(make_graph(point.graph)[0])
    assert part.whole == (nodes == 60)
    good, checked = sweep_worker.functional.gat_attention, part.nodes[part.grads[0]]

    def spoiled(graph, *tensors):
        out = good(graph, *tensors)
        return spoil(out, checked) if graph.num_nodes == nodes else out

    assert max(sweep_worker.prepare("good", point)["errors"].values()) < 1e-5
    monkeypatch.setattr(sweep_worker.functional, "gat_attention", spoiled)
    with pytest.raises(sweep_worker.WrongResultError, match=f"N = {nodes:,}: WRONG RESULT"):
        sweep_worker.prepare("bad", point)
    assert "bad" not in sweep_worker._held


def test_a_part_has_all_edges_that_its_gradients_need():
    import sweep_worker
    from sweep_graphs import GraphSpec, make_graph

    graph, _ = make_graph(GraphSpec("power-law", 5000, 60_000, exponent=2.5))
    part = sweep_worker._take_part(graph)
    assert not part.whole and len(part.nodes) < 5000
    src, dst = graph.edge_index
    inside, local = part.graph.in_degrees(), graph.in_degrees()[part.nodes]
    assert local[part.out[-1]] == graph.in_degrees().max()
    assert torch.equal(inside[part.out], local[part.out])
    for node in part.grads.tolist():
        reached = dst[src == part.nodes[node]].unique()
        assert torch.isin(reached, part.nodes).all()
        rows = torch.searchsorted(part.nodes, reached)
        assert torch.equal(inside[rows], local[rows])


# ---- graphs and plan


@pytest.mark.parametrize("kind", ["uniform", "power-law", "hub"])
def test_drawn_graphs(kind):
    from sweep_graphs import GraphSpec, make_graph

    spec = GraphSpec(kind, 1000, 21_000, exponent=2.2)
    graph, seconds = make_graph(spec)
    assert torch.equal(graph.edge_index, make_graph(spec)[0].edge_index) and seconds == 0
    assert graph.num_edges == 21_000 and graph.edge_id is None
    src, dst = graph.edge_index
    assert (torch.bincount(dst[src == dst], minlength=1000) >= 1).all()
    degrees = torch.stack([graph.in_degrees(), graph.out_degrees()]).double()
    largest = degrees.max(dim=1).values
    if kind == "uniform":
        assert largest.max() < 60
    elif kind == "hub":
        assert (degrees[:, 0] > 900).all() and (degrees[:, 1:] < 60).all()
    else:
        assert largest.min() > 1000 and degrees.median(dim=1).values.max() < 20


def test_a_renumbered_mesh_is_the_same_graph():
    from sweep_graphs import GraphSpec, make_graph

    pytest.importorskip("scipy")
    shuffled = GraphSpec("mesh", 400, 0, shuffle=True)
    spans = {}
    for spec in (shuffled, replace(shuffled, order="rcm")):
        graph, seconds = make_graph(spec)
        src, dst = graph.edge_index
        spans[spec.order] = (src - dst).abs().double().mean()
        assert graph.in_degrees().max() == 7 and bool(seconds) == bool(spec.order)
    assert spans["rcm"] < spans[""] / 4


def test_every_sweep_holds_the_standard_case_or_says_otherwise():
    from sweep_plan import STANDARD, full, full_epoch, tiny

    sweeps = {sweep.name: sweep for sweep in full()}
    with_standard = {n for n, s in sweeps.items() if STANDARD in s.points.values()}
    assert sweeps.keys() - with_standard == {"order", "beyond", "growth"}
    for name in with_standard:
        points = sweeps[name].points.values()
        assert len(set(points)) == len(points) > 1
    largest = list(sweeps["growth"].points.values())[-1].graph
    assert (largest.nodes, largest.edges) == (2_000_000, 60_000_000)
    assert full_epoch().graph == largest and full_epoch().bytes_needed < 24e9
    assert [sweep.name for sweep in tiny()] == list(sweeps)


# ---- targets


def row_of(sweep, label, forward, total, operator="gat_attention", gather=10.0, edges=1000):
    from sweep_results import Row

    row = Row(sweep, label, point_of(), operator, graph={"num_edges": edges})
    for _ in range(2):
        row.add(20.0, {"gather": [gather], "forward": [forward], "total": [total]})
    return row


def judged(*rows, **changes):
    from sweep_targets import judge

    return {v.name: v for v in judge(record_of(*rows, **changes))}


def test_targets_over_the_gather_limit():
    from sweep_targets import judge

    rows = [row_of("threads", "2", 13.0, 44.0), row_of("dtype", "float32", 13.0, 46.2)]
    dot = row_of("threads", "2", 27.0, 90.0, "dot_attention")
    found = judged(*rows, dot)
    both = found["forward and backward over the gather limit"]
    assert both.verdict == "missed" and both.found == {"gat_attention": pytest.approx(4.51)}
    two = found["forward over two gathers"]
    assert two.verdict == "missed" and two.found == {"dot_attention": pytest.approx(1.35)}
    forward = judge(record_of(*rows))[0]
    assert (forward.verdict, forward.wanted) == ("met", "≤ 1.3 ×")
    other = replace(rows[0], point=replace(rows[0].point, heads=1))
    assert judge(record_of(other))[0].verdict == "not measured"


def test_targets_that_compare_points():
    orders = [row_of("order", label, time, 2 * time) for label, time in (
        ("shuffled", 30.0), ("shuffled, degree", 29.0), ("shuffled, rcm", 15.0))]  # fmt: skip
    skews = [row_of("skew", label, time, 30.0) for label, time in (
        ("uniform", 10.0), ("power law 3.0", 11.0), ("power law 2.2", 14.0), ("one hub", 99.0))]  # fmt: skip
    growth = [row_of("growth", "1000", 1.0, 2.0), row_of("growth", "9000", 18.0, 27.0, edges=9000)]
    found = judged(*orders, *skews, *growth, row_of("threads", "1", 20.0, 40.0))
    regained = found["shuffled mesh over the best order, forward (judged: gat)"]
    assert regained.verdict == "met" and regained.found == {"gat_attention": 2.0}
    skew = found["steepest power law over uniform, forward"]
    assert skew.verdict == "no bound" and skew.found == {"gat_attention": 1.4}
    grown = found["time an edge, largest graph over smallest, forward"]
    assert grown.found == {"gat_attention": pytest.approx(2.0)}
    assert found["one thread over two, forward"].verdict == "not measured"
    slower = judged(orders[0], replace(orders[2], samples=orders[0].samples))
    assert slower["shuffled mesh over the best order, forward (judged: gat)"].verdict == "missed"


def test_targets_of_memory():
    within = {"gat_attention": {"status": "ok", "ratio": 2.9}}
    name, training = (
        "memory of a step beyond inputs and outputs",
        "peak memory of training on the largest graph",
    )
    found = judged(memory=within, epoch={"status": "ok", "peak": 25e9})
    assert found[name].verdict == "met" and found[training].verdict == "missed"
    beyond = within | {"dot_attention": {"status": "ok", "ratio": 3.1}}
    assert judged(memory=beyond)[name].verdict == "missed"
