"""The GPU benchmark on the CPU: a tiny run from end to end, its checks, byte model and targets."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
TINY = ["--device", "cpu", "--tiny", "--seconds", "0"]

pytest.importorskip("torch_geometric")


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


# ---- the whole way


def test_a_tiny_run_checks_times_and_writes_tables(tmp_path, capsys):
    import bench_cuda

    only = ["--graphs", "cora", "pubmed", "weather", "arxiv-uniform", "--peers", "dense", "pyg"]
    assert (
        bench_cuda.main([*TINY, *only, "--dtypes", "float32", "bfloat16", "--out", str(tmp_path)])
        == 0
    )

    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "cuda.json").read_text())
    results = record["results"]
    assert {r["library"] for r in results} == {"gat_ext", "dense", "pyg"}
    assert {r["row"]["item"] for r in results} == {"additive", "additive_v2", "dot", "cosine"}
    assert {r["mode"] for r in results} == {"forward", "forward+backward"}
    for r in results:
        assert r["status"] == "ok" and r["milliseconds"] > 0, r
        assert r["errors"]["out"] < (1e-5 if r["row"]["dtype"] == "float32" else 0.02)
        assert r["ns_per_edge"] == pytest.approx(1e6 * r["milliseconds"] / r["edges"])
        assert r["gathered_bytes"] >= r["unique_bytes"] > 0
        assert r["low"] <= r["milliseconds"] <= r["high"] and r["samples"] >= 3
        assert r["input_sets"] == 2
    both = [r for r in results if r["mode"] != "forward" and r["row"]["item"] == "additive_v2"]
    assert set(both[0]["errors"]) == {"out", "grad query", "grad key", "grad att"}
    assert [b["graph"] for b in record["builds"]] == ["pubmed", "arxiv-uniform", "weather", "cora"]
    assert all(b["from_shuffled"] > 0 and b["transpose"] > 0 for b in record["builds"])
    assert {c["status"] for c in record["captures"]} == {"left out"}
    assert len(record["captures"]) == 8

    report = (tmp_path / "cuda.md").read_text()
    for text in ("| library |", "PyG eager", "dense torch", "## Targets", "## CUDA graphs"):
        assert text in report
    targets = (tmp_path / "targets.md").read_text()
    assert "| results right by float64 | all | yes |" in targets
    assert targets in shown
    assert len((tmp_path / "digest.txt").read_text().splitlines()) == len(
        {json.dumps(r["row"]) for r in results}
    )


def test_layers_run_beside_pyg(tmp_path, capsys):
    import bench_cuda

    layers = ["layer gat", "layer gatv2", "layer agnn", "layer qkv"]
    arguments = [*TINY, "--graphs", "arxiv", "--scores", *layers, "--peers", "pyg"]
    assert bench_cuda.main([*arguments, "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "cuda.json").read_text())["results"]
    assert len(results) == 4 * 2 * 2
    for r in results:
        assert r["status"] == "ok" and max(r["errors"].values()) < 1e-4
        assert ("grad x" in r["errors"]) == (r["mode"] != "forward")


def test_no_gpu_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    import bench_cuda
    import run

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_cuda.main([]) == 2
    assert capsys.readouterr().err.strip() == bench_cuda.NEEDS_GPU
    assert run.main(["cuda", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == bench_cuda.NEEDS_GPU


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--graphs", "redit"], "unknown graph 'redit': did you mean 'reddit'"),
        (["--scores", "layer gta"], "did you mean 'layer gat'"),
        (["--peers", "dgl"], "unknown peer 'dgl'"),
        (["--graphs", "weather", "--scores", "cosine"], "no row is left"),
    ],
)
def test_a_typo_names_the_choices(arguments, message, capsys):
    import bench_cuda

    with pytest.raises(SystemExit):
        bench_cuda.main([*TINY, *arguments])
    assert message in capsys.readouterr().err


# ---- what goes wrong is told


def run_with(tmp_path, monkeypatch, attention):
    """A run of one row with another operator in place of gat_ext's."""
    import bench_cuda
    import cuda_operators

    monkeypatch.setattr(cuda_operators.functional, "edge_attention", attention)
    arguments = [*TINY, "--graphs", "arxiv-uniform", "--scores", "dot", "--dtypes", "bfloat16"]
    status = bench_cuda.main([*arguments, "--peers", "pyg", "--out", str(tmp_path)])
    return status, json.loads((tmp_path / "cuda.json").read_text())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: out * 1.05, "'out' is off by"),
        (lambda out: out.index_fill(0, torch.tensor([7]), 0.0), "a row by 1.0e+00"),
        (lambda out: out.index_fill(0, torch.tensor([7]), torch.nan), "128 entries that are not"),
    ],
)
def test_a_wrong_result_fails_the_run_and_is_not_timed(tmp_path, monkeypatch, spoil, message):
    from gat_ext import functional

    good = functional.edge_attention
    status, record = run_with(tmp_path, monkeypatch, lambda *a, **k: spoil(good(*a, **k)))
    assert status == 1
    ours = [r for r in record["results"] if r["library"] == "gat_ext"]
    assert {r["status"] for r in ours} == {"wrong"} and {r["milliseconds"] for r in ours} == {None}
    assert message in ours[0]["note"]
    assert all(r["milliseconds"] for r in record["results"] if r["library"] == "pyg")
    assert record["targets"][0]["verdict"] == "no" and len(record["problems"]) == 2


def test_an_error_that_takes_the_device_along_ends_the_run(tmp_path, monkeypatch):
    from cuda_session import Session

    def broken(*args, **options):
        raise RuntimeError("an illegal memory access was encountered\nmore")

    monkeypatch.setattr(Session, "_is_usable", lambda self: False)
    status, record = run_with(tmp_path, monkeypatch, broken)
    assert status == 1 and len(record["results"]) == 1
    assert record["results"][0]["note"] == "RuntimeError: an illegal memory access was encountered"
    assert record["lost"].startswith("stopped: the device is unusable after RuntimeError")


def test_peers_out_of_memory_time_or_reach_are_noted(tmp_path, monkeypatch):
    import cuda_session
    from cuda_cases import SPECS
    from cuda_operators import LeftOutError, make
    from cuda_plan import only, quick

    def raising(library, *args):
        if library == "pyg":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if library == "dense":
            time.sleep(5)
        if library == "pyg-compiled":
            raise ImportError("No module named 'torch_geometric'")
        return make(library, *args)

    monkeypatch.setattr(cuda_session, "make", raising)
    options = cuda_session.Options("cpu", tiny=True, seconds=0, peer_limit=0.1, out=tmp_path)
    peers = ("pyg", "dense", "pyg-compiled")
    rows = [replace(only(quick(), ["cora"], ["dot"])[0], peers=peers, modes=("forward",))]
    record = cuda_session.Session(options).run(rows)
    notes = {r.library: (r.status, r.note) for r in record.results}
    assert notes["gat_ext"] == ("ok", "")
    assert notes["pyg"] == ("left out", "out of memory")
    assert notes["dense"] == ("left out", "more than 0 s")
    assert notes["pyg-compiled"][0] == "left out" and "torch_geometric" in notes["pyg-compiled"][1]
    assert record.problems() == []
    with pytest.raises(LeftOutError, match="N×N of 169,343 nodes"):
        make("dense", "dot", type("Large", (), {"spec": SPECS["arxiv"]}), torch.float32)

    spent = cuda_session.Session(replace(options, budget=0.0)).run(rows)
    assert [r.note for r in spent.results] == ["no time left"]


# ---- the script for a GPU machine


def test_the_exercise_compares_with_the_cpu(capsys):
    import cuda_exercise

    assert cuda_exercise.main(["--device", "cpu", "--seconds", "0.5"]) == 0
    done, rest = capsys.readouterr().out.split(" of ", 1)
    assert int(done) > 5 and "0 differ from the CPU" in rest
    one, inf = torch.ones(3), torch.tensor([1.0, 2.0, -torch.inf])
    assert cuda_exercise.difference([one], [one]) == 0
    assert cuda_exercise.difference([inf], [inf]) == 0
    assert cuda_exercise.difference([one], [inf]) == float("inf")
    assert cuda_exercise.difference([one * torch.nan], [one]) == float("inf")
    assert cuda_exercise.difference([one + 0.1], [one]) == pytest.approx(0.1, rel=1e-3)


def test_gpu_check_refuses_an_unknown_stage(tmp_path):
    script = FOLDER / "gpu_check.sh"
    done = subprocess.run(
        ["bash", script, "biuld"],
        capture_output=True,
        text=True,
        env={"OUT": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert "unknown stage 'biuld'; choose from build, tests, sanitizer, bench" in done.stderr
