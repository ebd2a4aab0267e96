"""The checks that keep wrong figures out of the benchmarks, and a small run from end to end."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
TINY = ["--nodes", "200", "--degree", "4", "--heads", "2", "--channels", "4", "--threads", "1"]
BRIEF = ["--repeats", "2", "--min-seconds", "0"]

pytest.importorskip("torch_geometric")


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.syspath_prepend(str(FOLDER / "cuda"))
        yield


def all_items():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import run

        benches = run.discover(FOLDER)
    found = [(path, run.items_of(module)) for path, module in benches.values()]
    return [(path, name, item) for path, items in found for name, item in items.items()]


def tiny_setting(**changes):
    from cases import Setting

    changes = {"nodes": 40, "degree": 3, "heads": 2, "channels": 4, "dtype": "float64", **changes}
    return Setting(threads=1, **changes)


def results(family, item, case):
    from timing import run

    out, grads = run(item.build[family](case), case.tensors["grad_out"])
    return {"out": out, **{f"grad {name}": grad for name, grad in grads.items()}}


# ---- end to end


def test_a_run_prints_a_table_and_writes_json(tmp_path, capsys):
    import run

    peers = ["--peers", "gat_ext", "pyg", "dense", "dgl", "--python", "dgl=/no/such/python"]
    command = ["gat", *TINY, *BRIEF, *peers, "--dense-limit", "0.0001", "--out", str(tmp_path)]
    assert run.main(command) == 0

    shown = capsys.readouterr().out
    for text in ("GAT layer", "E = 1,000", "| gat_ext ", "| PyG eager", "a large copy moves"):
        assert text in shown
    assert "dense torch left out: N×N scores of 200 nodes" in shown
    assert "DGL left out: cannot run the interpreter /no/such/python" in shown

    record = json.loads((tmp_path / "results.json").read_text())
    assert record["machine"]["cpu"] and record["versions"]["pyg"]["torch_geometric"]
    ours, pyg, dense, _ = record["rows"]
    assert ours["status"] == pyg["status"] == "ok" and dense["status"] == "left out"
    names = {"out", *(f"grad {n}" for n in ("x", "lin.weight", "att_src", "att_dst", "bias"))}
    assert set(ours["errors"]) == set(dense["errors"]) == names
    assert ours["reference"] == "PyG eager" and max(ours["errors"].values()) < 1e-5
    for row in (ours, pyg):
        assert row["edges"] == 1000 and {len(v) for v in row["samples"].values()} == {2}
        assert 0 < row["median"]["forward"] < row["median"]["total"]
        assert row["median"]["gather"] > 0 and row["median"]["projection backward"] > 0
        assert row["memory"]["peak"] > row["memory"]["increase"] >= 0
    assert ours["ratio"]["total"] == 1.0 and pyg["ratio"]["total"] > 0
    assert not dense["samples"] and not dense["memory"]


WRONG = """
from bench_layers import ITEMS as LAYERS
from dataclasses import replace

gat = LAYERS["gat"]

def broken(body):
    def program(case):
        good = gat.build["dense"](case)
        function = good.function
        good.function = lambda *args: body(function(*args), args[0])
        return good
    return replace(gat, build={**gat.build, "dense": program})

ITEMS = {
    "bad_result": broken(lambda out, x: out + 1e-6 * out.detach()),
    "bad_gradient": broken(lambda out, x: out + 1e-6 * (x - x.detach())),
}
"""


def test_a_peer_that_differs_is_refused_and_not_timed(tmp_path, capsys):
    import run

    (tmp_path / "bench_unequal.py").write_text(WRONG)
    peers = ["--peers", "pyg", "dense", "--no-memory"]
    assert run.main([*TINY, *BRIEF, *peers, "--out", str(tmp_path)], folder=tmp_path) == 1

    errors = capsys.readouterr().err
    for item, name in (("bad_result", "'out'"), ("bad_gradient", "'grad x'")):
        assert (
            f"ERROR {item}: dense torch wrong: {name} differs from PyG eager in float64" in errors
        )
    for row in json.loads((tmp_path / "results.json").read_text())["rows"]:
        assert bool(row["samples"]) == (row["peer"] == "pyg"), row


def test_a_peer_without_a_reference_is_not_timed(tmp_path):
    import run
    from session import Options, Session

    path, module = run.discover(FOLDER)["operators"]
    item = replace(module.ITEMS["sddmm"], build={"gat_ext": module.ITEMS["sddmm"].build["gat_ext"]})
    (row,) = Session(Options(tiny_setting(), ("gat_ext",), {}, memory=False)).compare(
        path, "sddmm", item
    )
    assert row.status == "left out" and "no other library" in row.note and not row.timed


# ---- discovery and names


def test_benchmarks_are_discovered_by_their_file_name(tmp_path):
    import run

    (tmp_path / "bench_mine.py").write_text("ITEMS = {'one': 1}\n")
    (tmp_path / "helper.py").write_text("raise AssertionError('not a benchmark')\n")
    assert list(run.discover(tmp_path)) == ["mine"]
    names = {
        "busy",
        "edges",
        "layers",
        "operators",
        "epoch",
        "sweeps",
        "typed",
        "walk",
        "gam",
        "partition",
    }
    names |= {"distributed", "sampling"}
    assert names == set(run.discover(FOLDER))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gatt"], "did you mean 'gat'"),
        (["--peers", "pygg"], "unknown peer 'pygg': did you mean 'pyg'"),
        (["--python", "dgl"], "takes PEER=PATH, not 'dgl'"),
        (["--nodes", "0"], "not a positive number"),
    ],
)
def test_unknown_names_list_the_choices(arguments, message, capsys):
    import run

    with pytest.raises(SystemExit):
        run.main(arguments)
    assert message in capsys.readouterr().err


# ---- peers


@pytest.mark.parametrize("found", [pytest.param(i, id=f"{i[0].stem}-{i[1]}") for i in all_items()])
def test_libraries_agree_on_every_item(found):
    from check import Part, compare

    _, _, item = found
    case = item.case(tiny_setting())
    want = results("pyg", item, item.case(tiny_setting()))
    for family in sorted({"gat_ext", "dense"} & set(item.build)):
        part = Part(case, {}, {}, whole=True)
        errors = compare(results(family, item, item.case(tiny_setting())), want, part, item)
        assert set(errors) == set(want) and max(errors.values()) < 1e-10, (family, errors)


def test_dgl_agrees_with_tied_weights(monkeypatch):
    monkeypatch.setenv("DGLBACKEND", "pytorch")
    pytest.importorskip("dgl")
    from session import Options, Session

    session = Session(Options(tiny_setting(), ("dgl",), {}, rounds=1, memory=False))
    for path, name, item in all_items():
        if "dgl" in item.build:
            (row,) = session.compare(path, name, item)
            assert row.status == "ok" and max(row.errors.values()) < 1e-9, name


def test_a_library_that_is_absent_is_named(monkeypatch):
    import peers

    monkeypatch.setitem(sys.modules, "dgl", None)
    with pytest.raises(ImportError, match=r"cannot import dgl: .*--python dgl=PATH"):
        peers.probe("dgl")


def test_a_process_that_ended_is_reported():
    from peers import PeerError, Remote

    with Remote(sys.executable, threads=1, timeout=60) as remote:
        with pytest.raises(PeerError, match="RuntimeError: no program"):
            remote.ask("sample", min_seconds=0)
        remote._process.kill()
        remote._process.wait()
        with pytest.raises(PeerError, match="ended by SIGKILL"):
            remote.ask("sample", min_seconds=0)


# ---- equality


@pytest.mark.parametrize("name", ["gat", "gatv2_attention", "spmm", "edge_softmax"])
def test_a_part_of_a_large_graph_shows_a_wrong_result(name, monkeypatch):
    import check

    monkeypatch.setattr(check, "_PART_EDGES", 600)
    _, _, item = next(found for found in all_items() if found[1] == name)
    case = item.case(tiny_setting(graph="power-law", nodes=300, dtype="float32"))
    part = check.take_part(case, item)
    assert not part.whole and part.case.num_edges < case.num_edges
    got = results("gat_ext", item, case)
    want = results("pyg", item, part.case)
    errors = check.compare(got, want, part, item)
    rows = {f"grad {n}" for n in item.rows if n != "out"} & set(got)
    assert set(errors) == {"out", *rows}
    check.refuse_unequal(errors, "float32", "gat_ext", "PyG eager")
    for wrong in errors:
        broken = {**got, wrong: got[wrong] * 1.01}
        with pytest.raises(check.WrongResultError, match=f"'{wrong}' differs"):
            errors = check.compare(broken, want, part, item)
            check.refuse_unequal(errors, "float32", "gat_ext", "PyG eager")
    got["out"][-1] = torch.nan  # may be outside the part
    assert check.compare(got, want, part, item)["out"] == float("inf")


def test_differences_are_infinite_for_shapes_and_nan():
    from check import difference, restrict, tolerance

    one = torch.ones(3)
    assert difference(one, one) == 0
    assert difference(one + 1e-3, one) == pytest.approx(1e-3, rel=1e-3)
    assert difference(one.reshape(3, 1), one) == float("inf")
    assert difference(torch.full((3,), torch.nan), one) == float("inf")
    assert tolerance("bfloat16", "gat_ext") < tolerance("bfloat16", "pyg")
    tied = restrict({"a": one, "b": 2 * one, "c": one, "grad_out": one}, [["a", "b"]], "abc")
    assert torch.equal(tied["b"], one) and not tied["c"].any() and tied["grad_out"].all()


# ---- figures


def test_rounds_are_interleaved_and_ratios_are_within_a_round():
    from timing import interleave, ratio

    order = []

    def step(name, times):
        def run():
            order.append(name)
            if name == "bad" and len(order) > 4:
                raise RuntimeError("gone")
            return {"total": next(times)}

        return run

    times = {"a": iter([1.0, 10.0, 3.0]), "b": iter([2.0, 40.0, 3.0]), "bad": iter([1.0] * 3)}
    samples, failed = interleave({name: step(name, t) for name, t in times.items()}, 3)
    assert order == ["a", "b", "bad", "b", "bad", "a", "a", "b"]
    assert list(failed) == ["bad"] and samples["bad"] == {}
    assert ratio(samples["b"]["total"], samples["a"]["total"]) == 2.0  # of 2, 4 and 1


@pytest.mark.slow
def test_sweeps_compare_times_per_edge(monkeypatch):
    import bench_sweeps
    from session import Options, Session

    for sweep in bench_sweeps.sweeps():
        assert sweep.base in sweep.settings and set(sweep.operators) <= set(bench_sweeps.ATTENTIONS)
    setting = tiny_setting(dtype="float32")
    settings = {"40": setting, "80": replace(setting, nodes=80)}
    session = Session(Options(setting, ("gat_ext",), {}, rounds=3, min_seconds=0, memory=False))
    for apart in (False, True):
        sweep = bench_sweeps.Sweep("nodes", settings, "40", apart=apart)
        small, large = session.measure(
            bench_sweeps._points(sweep, "gat_attention"), "40", apart=apart
        )
        assert small.edges == 160 and large.edges == 320 and small.ratio["total"] == 1.0
        assert large.ratio["total"] > 0 and len(large.samples["total"]) == (2 if apart else 3)
    halves = [
        0.5 * a / b for a, b in zip(*(r.samples["total"] for r in (large, small)), strict=True)
    ]
    assert min(halves) * 0.2 < large.ratio["total"] < max(halves) * 5


@pytest.mark.slow
def test_an_epoch_beside_a_busy_process(monkeypatch):
    import bench_busy
    from session import Options, Session

    options = Options(tiny_setting(), ("gat_ext",), {}, rounds=2, min_seconds=0.1)
    rows = [row for (row,) in bench_busy.measure(Session(options))]
    assert [row.status for row in rows][:2] == ["ok"] * 2 and rows[2].status in ("ok", "left out")
    assert rows[0].figures["× quiet"] == 1 and rows[1].figures["× quiet"] > 0


def test_partitions_are_checked_before_they_are_reported(monkeypatch):
    import bench_partition
    from report import OK, WRONG, table
    from session import Options, Session

    monkeypatch.setattr(bench_partition, "METHODS", ("range",))
    monkeypatch.setattr(bench_partition, "PARTS", (2, 5))
    setting = tiny_setting(graph="mesh", nodes=50)
    session = Session(Options(setting, ("gat_ext",), {}, memory=False))
    ranges, bisection = bench_partition.measure(session)
    assert [row.status for row in (*ranges, *bisection)] == [OK] * 4
    assert 0 < ranges[0].figures["cut"] < ranges[1].figures["cut"] < 1
    assert "cut" in table(ranges) and "halo" in table(ranges)
    assert bisection[0].item == "coordinates"

    real = bench_partition.make_parts

    def broken(*arguments):
        parts = real(*arguments)
        parts[1].edges[0] = parts[1].edges[1]
        return parts

    monkeypatch.setattr(bench_partition, "make_parts", broken)
    ((first, _), _) = bench_partition.measure(session)
    assert first.status == WRONG and "edges are not those of the graph" in first.note


def test_limits_and_bandwidth_of_a_row():
    from report import Row

    samples = {"total": [8.0, 12.0, 30.0], "gather": [1.0, 2.0, 3.0], "copy": [100.0] * 3}
    row = Row("b", "i", "t", "l", gathers=2, edges=1000, samples=samples, setting={"heads": 2})
    assert row.limit == 4.0 and row.over_limit("total") == 4.0  # of 4, 3 and 5
    row.moved = {"total": 600_000_000}
    assert row.of_copy("total") == pytest.approx(0.5)
    row.memory = {"peak": 0, "increase": 24_000, "kept": 8_000}
    assert row.beyond == 2.0


def test_bytes_follow_what_a_score_reads():
    from limits import Sizes, bytes_moved

    from gat_ext.ops.scores import TRAITS

    sizes = Sizes(edges=1000, nodes=0, row=512, term=4, statistic=4)
    forward = {name: bytes_moved(name, 1, sizes)["forward"] / 1000 for name in TRAITS}
    for name, traits in TRAITS.items():
        assert forward[name] == 512 + 4 + 4 * ("dst_term" in traits.required)
        moved = bytes_moved(name, 2, sizes)
        assert moved["forward"] == 1000 * (forward[name] + 512) < moved["total"]


@pytest.mark.parametrize("graph", ["uniform", "power-law", "hub", "mesh", "pubmed-size"])
def test_graphs_are_sorted_and_have_self_loops(graph):
    from cases import SIZES, Setting, make_case

    setting = Setting(graph=graph, nodes=900, degree=6)
    case = make_case(setting)
    src, dst = case.edge_index
    assert torch.equal(case.edge_index, make_case(replace(setting, heads=1)).edge_index)
    assert src.min() >= 0 and src.max() < case.num_nodes and (dst.diff() >= 0).all()
    assert (torch.bincount(dst[src == dst], minlength=case.num_nodes) >= 1).all()
    degrees = torch.bincount(dst, minlength=case.num_nodes)
    if graph == "mesh":
        assert degrees.max() == 7 and degrees.median() == 7
        ordered = make_case(replace(setting, shuffle=True, order="degree"))
        assert ordered.num_edges == case.num_edges
    elif graph in SIZES:
        nodes, edges, largest = SIZES[graph]
        assert (case.num_nodes, case.num_edges) == (nodes, edges)
        assert 0.5 * largest < degrees.max() < 2 * largest
    else:
        assert case.num_edges == 900 * 7
    if graph == "hub":
        assert 700 < degrees.max() < 1100
    if graph == "power-law":
        assert degrees.max() > 10 * degrees.median()


def test_peak_memory_sees_an_allocation():
    from timing import Program, peak_memory, reset_peak

    if not reset_peak():
        pytest.skip("the system does not let a process reset its high-water mark")
    x = torch.ones(1000, requires_grad=True)

    def allocates(tensor):
        return tensor + torch.ones(8_000_000).sum() * 0

    found = peak_memory(Program(allocates, (x,), {("x",): x}), torch.ones(1000))
    assert 31e6 < found["increase"] < 64e6 and found["kept"] == 2 * 4000


# ---- a GPU's


def test_chart_of_layers(tmp_path):
    import chart

    pytest.importorskip("matplotlib")
    rows = [
        {"bench": "layers", "item": item, "peer": peer, "median": {"total": time}, "memory": memory}
        for item, peer, time, memory in [
            ("gat", "gat_ext", 213.0, {"peak": 780_000_000}),
            ("gat", "pyg", 4819.0, {"peak": 5_060_000_000}),
            ("agnn", "pyg", 9230.0, {}),  # memory was not measured
        ]
    ]
    machine = {"cpu": "A CPU", "cores": 2, "memory": 2**32}
    record = {"machine": machine, "started": "2026-01-02T03:04:05", "rows": rows}
    assert chart.figures(record) == {"GAT": {"gat_ext": (0.213, 0.78), "pyg": (4.819, 5.06)}}
    out = tmp_path / "layers.svg"
    chart.draw(record, out)
    first = out.read_text()
    assert "0.21" in first and "5.06" in first and "AGNN" not in first
    assert "A CPU, 2 cores, 4 GiB, 2026-01-02" in first
    chart.draw(record, out)
    assert out.read_text() == first
    with pytest.raises(ValueError, match="no times and memory of layers"):
        chart.draw(record | {"rows": rows[2:]}, out)
