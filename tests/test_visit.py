"""The steps on a machine with a GPU: their plan, and what of them runs without one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def benchmarks_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.syspath_prepend(str(FOLDER / "cuda"))
        yield


def test_the_exercise_runs_on_the_cpu(capsys):
    import exercise

    assert exercise.main(["--device", "cpu", "--seconds", "0.5"]) == 0
    assert "0 differ from the CPU" in capsys.readouterr().out
    one, infinite = torch.ones(2), torch.tensor([1.0, torch.inf])
    assert exercise.difference([one], [one]) == 0
    assert exercise.difference([infinite], [one]) == float("inf")


def test_a_visit_needs_a_gpu_and_lists_existing_test_files(capsys, monkeypatch):
    pytest.importorskip("torch_geometric")
    import run
    import visit

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert visit.main([]) == 2 and "no GPU" in capsys.readouterr().err
    names = (*visit.OPERATOR_TESTS, *visit.LAYER_TESTS)
    assert all((visit.ROOT / f"tests/test_{name}.py").exists() for name in names)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert len(visit.TIMED) == 14
    for arguments in visit.TIMED.values():
        args = run.make_parser().parse_args([*arguments, "--device", "cuda"])
        run.refuse_unknown(args.names, run.discover(FOLDER))
        assert run.parse_options(args).setting.device == "cuda"


def test_the_stages_of_a_visit_fit_into_two_calls_of_ten_minutes():
    import visit

    assert sum(visit.PLAN.values()) - visit.PLAN["time"] <= 570 >= visit.PLAN["time"]


def test_a_command_of_a_visit_that_fails_or_hangs(tmp_path):
    import visit

    echo = visit.Command("echo", (sys.executable, "-c", "print('last'); raise SystemExit(3)"))
    status, detail = visit.execute(echo, tmp_path)
    assert status == "FAILED" and detail.startswith("last (see ")
    hangs = "import time; print('begun', flush=True); time.sleep(60)"
    status, detail = visit.execute(
        visit.Command("hang", (sys.executable, "-c", hangs)), tmp_path, 3
    )
    assert status == "LATE" and "begun" in detail


def test_the_commands_of_a_visit(monkeypatch, tmp_path):
    import profiled
    import visit

    monkeypatch.setattr(visit, "find", lambda tool: f"/bin/{tool}")
    for stage in ("test", "sanitize", "profile", "time"):
        ran = []
        monkeypatch.setattr(visit, "execute", lambda c, *_, ran=ran: (ran.append(c), ("ok", ""))[1])
        assert visit.run([stage], 5, tmp_path) == 0
        assert ran == list(visit.commands(stage, 5, tmp_path))
    monkeypatch.setitem(visit.PLAN, "test", 0)
    ran.clear()
    assert visit.run(["test"], 5, tmp_path) == 0 and not ran  # left out
    profiles = list(visit.commands("profile", 5, tmp_path))
    script = "benchmarks/cuda/profiled.py"
    for command in (c for c in profiles if c.name.startswith("profile ")):
        name, *options = command.arguments[command.arguments.index(script) + 1 :]
        assert name in profiled.ATTENTIONS and options[::2] == ["--graph", "--dtype"]


@pytest.mark.parametrize("name", ["gat", "gatv2", "dot", "cosine"])
def test_what_is_profiled_runs_on_the_cpu(name):
    import profiled

    arguments = [f"{name}_attention", "--graph", "uniform", "--device", "cpu"]
    assert profiled.main(arguments) == 0


def test_a_profile_is_read(capsys, tmp_path):
    import profiled

    table = """==PROF== Connected to process 1
"ID","Process ID","Kernel Name","dram__throughput.avg.pct_of_peak","gpu__time_duration.sum"
"","","","%","us"
"0","1","void gat::cuda::rows_kernel<Pass>(T1, RowPlan)","61.25","1,234.5"
"""
    kernel = profiled.read(table)[0]
    assert kernel["kernel"].startswith("void gat::cuda::rows_kernel<Pass>")
    assert kernel["DRAM"] == "61.25 %" and kernel["time"] == "1,234.5 us"
    assert kernel["issue active"] == "-"
    (tmp_path / "profile.csv").write_text(table)
    assert profiled.main(["--read", str(tmp_path / "profile.csv")]) == 0
    assert "DRAM 61.25 %" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no CSV of ncu"):
        profiled.read("==ERROR== no kernels were profiled")


def test_targets(tmp_path, capsys):
    import targets

    def row(peer, graph, dtype, edges=2_000_000, bench="operators", **median):
        setting = {"graph": graph, "dtype": dtype}
        return {
            **{"bench": bench, "item": "gat_attention", "peer": peer, "setting": setting},
            **{"edges": edges, "median": median, "moved": {"forward": 8_000_000_000}},
        }

    rows = [
        row("gat_ext", "reddit-size", "bfloat16", forward=6.5, total=20.0),
        row("pyg", "reddit-size", "bfloat16", forward=90.0, total=140.0),
        row("gat_ext", "pubmed-size", "bfloat16", 1000, forward=0.02, total=0.1),
        row("pyg", "pubmed-size", "bfloat16", 1000, forward=0.02, total=0.1),  # not busy
        row("gat_ext", "products-size", "float32", forward=2.0, total=6.0, copy=4000.0),
    ]
    lines = [str(verdict) for verdict in targets.verdicts(rows)]
    endings = ["met", "not measured", "not measured", "missed", "not measured", "met"]
    endings.append("not measured")
    assert all(line.endswith(end) for line, end in zip(lines, endings, strict=True)), lines
    assert " 7  missed" in lines[3] and " 1  met" in lines[5]
    (tmp_path / "time_00").mkdir()
    (tmp_path / "time_00" / "results.json").write_text('{"rows": []}')
    targets.report(tmp_path)
    assert capsys.readouterr().out.count("not measured") == len(lines)
