"""The benchmark suite: one small run from end to end, its refusal of wrong results, its graphs."""

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
        yield


def tiny_case(item, **changes):
    from cases import Setting, make_case

    setting = replace(Setting(nodes=40, degree=3, heads=2, channels=4, dtype="float64"), **changes)
    case = make_case(setting)
    case.tensors = item.tensors(case, torch.Generator().manual_seed(0))
    return case


def all_items():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import run

        found = run.select([], run.discover(FOLDER))
    return [pytest.param(item, id=f"{path.stem}-{name}") for path, name, item in found]


# ---- the whole way


def test_a_run_prints_a_table_and_writes_json_and_a_chart(tmp_path, capsys):
    import run

    peers = ["--peers", "gat_ext", "pyg", "dense", "--dense-limit", "0.0001"]
    assert run.main(["gat", *TINY, *BRIEF, *peers, "--out", str(tmp_path)]) == 0

    shown = capsys.readouterr().out
    for text in (
        "GAT layer",
        "E = 1,000",
        "gat_ext",
        "PyG eager",
        "limit: gather rows",
        "copy bandwidth",
    ):
        assert text in shown
    assert "dense torch left out: N×N scores of 200 nodes" in shown
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")

    record = json.loads((tmp_path / "results.json").read_text())
    assert record["machine"]["cpu"] and record["versions"]["pyg"]["torch_geometric"]
    gat = record["items"]["gat"]
    assert gat["case"]["num_edges"] == 200 * 5
    ours, pyg, dense = (gat["peers"][name] for name in ("gat_ext", "pyg", "dense"))
    assert ours["status"] == pyg["status"] == "ok" and dense["status"] == "left out"
    assert set(ours["errors"]) == {
        "out", "grad x", "grad lin.weight", "grad att_src", "grad att_dst", "grad bias"
    }  # fmt: skip
    assert max(ours["errors"].values()) < 1e-5
    assert dense["errors"] and dense["median"] == {}
    for row in (ours, pyg):
        assert [len(rounds) for rounds in row["samples"].values()] == [2] * 4
        assert 0 < row["median"]["forward"] < row["median"]["total"]
        assert row["memory"]["peak"] > row["memory"]["increase"] >= 0
    assert ours["ratio"]["total"] == 1.0 and pyg["ratio"]["total"] > 0
    assert len(gat["limits"]["gather"]["samples"]) == 2


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
    "bad_result": broken(lambda out, x: out + 0.01 * out.detach()),
    "bad_gradient": broken(lambda out, x: out + 0.01 * (x - x.detach())),
}
"""


def test_a_wrong_peer_fails_the_run_and_is_not_timed(tmp_path, capsys):
    import run

    (tmp_path / "bench_wrong.py").write_text(WRONG)
    peers = ["--peers", "pyg", "dense", "dgl", "--python", "dgl=/no/such/python", "--no-memory"]
    status = run.main([*TINY, *BRIEF, *peers, "--out", str(tmp_path)], folder=tmp_path)

    shown = capsys.readouterr()
    assert status == 1
    assert "ERROR bad_result: dense torch wrong: WRONG RESULT: 'out' differs" in shown.err
    assert "ERROR bad_gradient: dense torch wrong: WRONG RESULT: 'grad x' differs" in shown.err
    assert "differs from PyG eager by" in shown.out
    assert "DGL left out: cannot run the interpreter /no/such/python" in shown.out
    items = json.loads((tmp_path / "results.json").read_text())["items"]
    for item in ("bad_result", "bad_gradient"):
        row = items[item]["peers"]["dense"]
        assert row["status"] == "wrong" and row["median"] == {} and row["samples"] == {}
        assert items[item]["peers"]["pyg"]["median"]["total"] > 0


def test_a_library_that_is_not_there_is_named(monkeypatch):
    import peers

    monkeypatch.setitem(sys.modules, "dgl", None)
    with pytest.raises(ImportError, match=r"cannot import dgl: .*--python dgl=PATH"):
        peers.probe("dgl")


def test_a_dead_worker_is_reported():
    from client import Client, PeerError

    with Client(sys.executable, threads=1, timeout=60) as client:
        with pytest.raises(PeerError, match="RuntimeError: no program"):
            client.ask("sample", min_seconds=0)
        client._process.kill()
        client._process.wait()
        with pytest.raises(PeerError, match="ended by SIGKILL"):
            client.ask("sample", min_seconds=0)
        assert not client.alive


# ---- discovery and names


def test_benchmarks_are_discovered_by_their_file_name(tmp_path):
    import run

    (tmp_path / "bench_mine_alone.py").write_text("ITEMS = {'one': 1, 'two': 2}\n")
    (tmp_path / "helper.py").write_text("raise AssertionError('not a benchmark')\n")
    benches = run.discover(tmp_path)
    assert list(benches) == ["mine_alone"]
    assert [name for _, name, _ in run.select(["mine_alone"], benches)] == ["one", "two"]
    assert [name for _, name, _ in run.select(["two"], benches)] == ["two"]
    assert {"layers", "operators", "epoch"} <= set(run.discover(FOLDER))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gatt"], "did you mean 'gat'"),
        (["--peers", "pygg"], "unknown peer 'pygg': did you mean 'pyg'"),
        (["--python", "dgl"], "takes PEER=PATH, not 'dgl'"),
        (["--nodes", "0"], "not a positive number"),
    ],
)
def test_a_typo_names_the_choices(arguments, message, capsys):
    import run

    with pytest.raises(SystemExit):
        run.main(arguments)
    assert message in capsys.readouterr().err


# ---- every item computes the same thing in every library


@pytest.mark.parametrize("item", all_items())
def test_peers_agree_on_every_item(item):
    from compare import differences
    from measure import step

    results = {}
    for family in sorted({"gat_ext", "pyg", "dense"} & set(item.build)):
        program = item.build[family](tiny_case(item))
        out = step(replace(program, update=None), tiny_case(item).tensors["grad_out"]).out
        grads = {names[0]: leaf.grad for names, leaf in program.leaves.items()}
        results[family] = {"out": out.detach(), "grads": grads}
    groups = [[name] for name in results["pyg"]["grads"]]
    for family, result in results.items():
        errors = differences(result, results["pyg"], groups)
        assert max(errors.values()) < 1e-10, (family, errors)


def test_dgl_agrees_with_tied_weights(monkeypatch):
    monkeypatch.setenv("DGLBACKEND", "pytorch")
    pytest.importorskip("dgl")
    import run
    from compare import differences, restrict
    from measure import step

    for _, name, item in run.select([], run.discover(FOLDER)):
        groups = [list(names) for names in item.build["dgl"](tiny_case(item)).leaves]
        every = [name for names in item.build["pyg"](tiny_case(item)).leaves for name in names]
        results = []
        for family in ("dgl", "pyg"):
            case = tiny_case(item)
            case.tensors = restrict(case.tensors, groups, every)
            program = item.build[family](case)
            out = step(replace(program, update=None), case.tensors["grad_out"]).out
            grads = {"+".join(names): leaf.grad for names, leaf in program.leaves.items()}
            results.append({"out": out.detach(), "grads": grads})
        assert max(differences(results[0], results[1], groups).values()) < 1e-10, name


def test_differences_see_shapes_and_nan():
    from compare import difference, restrict, tolerance, verdict

    one = torch.ones(3)
    assert difference(one, one) == 0
    assert difference(one + 1e-3, one) == pytest.approx(1e-3, rel=1e-3)
    assert difference(one.reshape(3, 1), one) == float("inf")
    assert difference(torch.full((3,), torch.nan), one) == float("inf")
    assert verdict({"out": 1e-6}, 1e-4, "x") is None
    assert "'grad y'" in verdict({"out": 0.0, "grad y": 0.5}, 1e-4, "x")
    assert tolerance("bfloat16", "gat_ext") < tolerance("bfloat16", "pyg")
    tied = restrict(
        {"a": one, "b": 2 * one, "c": one, "grad_out": one}, [["a", "b"]], ["a", "b", "c"]
    )
    assert torch.equal(tied["b"], one) and not tied["c"].any() and tied["grad_out"].all()


# ---- graphs and measures


@pytest.mark.parametrize("graph", ["uniform", "power-law", "mesh", "knn"])
def test_generated_graphs(graph):
    from cases import Setting, make_case

    setting = Setting(graph=graph, nodes=900, degree=6)
    case = make_case(setting)
    src, dst = case.edge_index
    assert torch.equal(case.edge_index, make_case(setting).edge_index)
    assert case.edge_index.min() >= 0 and case.edge_index.max() < 900
    assert (dst.diff() >= 0).all()
    loops = torch.bincount(dst[src == dst], minlength=900)
    assert (loops >= 1).all()
    degrees = torch.bincount(dst, minlength=900)
    if graph == "mesh":
        assert degrees.max() == 7 and degrees.median() == 7
        assert torch.equal(degrees, torch.bincount(src, minlength=900))
    else:
        assert case.num_edges == 900 * 7
    if graph == "power-law":
        assert degrees.max() > 10 * degrees.median()
    if graph == "knn":
        assert (degrees == 7).all()
    shuffled = make_case(replace(setting, shuffle=True))
    assert not torch.equal(shuffled.edge_index, case.edge_index)
    renumbered = torch.bincount(shuffled.edge_index[1], minlength=900)
    assert torch.equal(renumbered.sort().values, degrees.sort().values)


def test_a_data_set_brings_its_features(data_dir):
    from bench_layers import ITEMS
    from cases import Setting, make_case

    case = make_case(Setting(graph="cora", root=str(data_dir / "planetoid")))
    assert case.num_nodes == 2708 and case.num_classes == 7
    tensors = ITEMS["gat"].tensors(case, torch.Generator().manual_seed(0))
    assert tensors["x"].shape == (2708, 1433) and tensors["lin.weight"].shape == (128, 1433)
    assert ITEMS["agnn"].tensors(case, torch.Generator().manual_seed(0))["x"].shape == (2708, 128)


def test_peak_memory_sees_an_allocation():
    from measure import peak_memory
    from peers import Program

    x = torch.ones(1000, requires_grad=True)

    def allocates(tensor):
        return tensor + torch.ones(8_000_000).sum() * 0

    found = peak_memory(Program(allocates, (x,), {("x",): x}), torch.ones(1000))
    if not found["warmed"]:
        pytest.skip("the system does not let a process reset its high-water mark")
    assert 31e6 < found["increase"] < 64e6
    assert found["kept"] == 2 * 4000


def test_plain_table_is_aligned():
    from report import plain

    lines = plain([["", "ms"], ["gat_ext", "1.0"], ["x", "100.0"]]).splitlines()
    assert lines == ["            ms", "gat_ext    1.0", "x        100.0"]
