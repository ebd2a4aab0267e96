"""The programs in docs/guides run as they are printed; the tables of a model are its output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gat_ext

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LINK = re.compile(r"\]\(([^)#:]+)(?:#([^)]+))?\)")


def programs(guide: Path) -> dict[str, str]:
    """The Python programs of a guide, by the names in their first lines."""
    found = {}
    for block in re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL):
        name = block.split("\n")[0].removeprefix("# ")
        assert re.fullmatch(r"\w+\.py", name), f"{guide}: a program has no name, but {name}"
        found[name] = block
    return found


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(Path(gat_ext.__file__).parents[1]),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# Runs programs one after the other in one process, which imports torch once.
RUNNER = """
import contextlib, io, json, runpy, sys
printed = []
for path in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(path, run_name="__main__")
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


def run_all(folder: Path, *names: str) -> list[str]:
    """What each of the programs prints."""
    return json.loads(run(folder, "-c", RUNNER, *names))


def test_the_guide_of_parts(tmp_path: Path) -> None:
    guide = ROOT / "docs" / "guides" / "distributed.md"
    found = programs(guide)
    assert list(found) == ["prepare.py", "train.py", "without_files.py"]
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    run(tmp_path, "without_files.py")
    pytest.importorskip("pymetis")
    assert "halo" in run(tmp_path, "prepare.py")
    assert "torchrun --nproc-per-node 2 train.py" in guide.read_text()
    assert accuracy_of(run(tmp_path, *TORCHRUN, "train.py")) > 0.8


def accuracy_of(printed: str) -> float:
    score = re.search(r"accuracy ([\d.]+)", printed)
    assert score, printed
    return float(score[1])


def test_the_guide_of_mini_batches(tmp_path: Path) -> None:
    guide = ROOT / "docs" / "guides" / "mini_batches.md"
    found = programs(guide)
    assert list(found) == ["train.py", "own_layers.py", "several_types.py", "several.py"]
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    train, _, several_types = run_all(tmp_path, "train.py", "own_layers.py", "several_types.py")
    assert accuracy_of(train) > 0.8 and accuracy_of(several_types) > 0.8
    assert "torchrun --nproc-per-node 2 several.py" in guide.read_text()
    assert accuracy_of(run(tmp_path, *TORCHRUN, "several.py")) > 0.8


@pytest.mark.slow
def test_the_guide_of_exports(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = programs(ROOT / "docs" / "guides" / "export.md")
    assert list(found) == ["export.py"]
    (tmp_path / "export.py").write_text(found["export.py"])
    assert run(tmp_path, "export.py").count("differs from the model by at most") == 2


@pytest.mark.slow  # .ci/stranger runs these programs and commands
def test_the_guide_of_own_data(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    guide = ROOT / "docs" / "guides" / "own_data.md"
    found = programs(guide)
    assert list(found) == ["write.py", "use.py"]
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    run(tmp_path, "write.py")
    commands = re.findall(r"^gat-ext (.*)$", guide.read_text(), re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["train", "predict"]
    for command in commands:
        run(tmp_path, "-m", "gat_ext", *command.replace("--epochs 200", "--epochs 60").split())
    assert accuracy_of(run(tmp_path, "use.py")) > 0.7


@pytest.mark.parametrize("page", [*GUIDES, *sorted((ROOT / "docs" / "notes").glob("*.md"))])
def test_links_lead_somewhere(page: Path) -> None:
    for target, section in LINK.findall(page.read_text()):
        place = (page.parent / target).resolve()
        assert place.exists(), target
        if section:
            titles = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            assert section in [title.lower().replace(" ", "-") for title in titles], section


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scaling_model

    return scaling_model


def test_tables_of_the_note_are_those_of_the_model(model) -> None:
    lines = (ROOT / "docs" / "notes" / "scaling.md").read_text().split("\n")
    missing = [line for line in model.report(4, 32, 1.0) if line and line not in lines]
    assert not missing, "run benchmarks/scaling_model.py, and copy: " + "\n".join(missing)


def test_halo_fractions(model) -> None:
    for graph, values in model.HALO.items():
        assert model.halo_fraction(graph, 1) == 0
        found = [model.halo_fraction(graph, parts) for parts in (2, 4, 8, 16, 32, 64)]
        assert found == sorted(found)
        assert found[:4] == list(values[:4])
        assert found[5] == values[4]
        assert found[4] == pytest.approx((values[3] * values[4]) ** 0.5)
    with pytest.raises(ValueError, match="parts is 65; expected 1, or 2 to 64"):
        model.halo_fraction("mesh", 65)


def test_bytes_and_seconds(model) -> None:
    """By hand, for 1000 nodes in 4 parts."""
    problem = model.Problem(1000, 5000, "uniform")
    rows = 2.95 * 250
    gat, transformer = model.Layer("gat", 4, 10), model.Layer("transformer", 4, 10)
    assert (gat.row, transformer.row) == (44, 80)
    assert model.Layer("gatv2", 4, 10).row == 40
    assert model.Layer("agnn", 1, 16).row == 17
    assert model.sent(problem, gat, 4, "overlap") == pytest.approx((rows * 176, rows * 176))
    assert model.sent(problem, gat, 4, "sequential") == pytest.approx((rows * 176, rows * 352))
    assert model.sent(problem, gat, 4, "heads")[0] == pytest.approx(250 * 0.75 * 4 * (48 + 40))
    assert model.kept(problem, gat, 4, "sequential") == 0
    assert model.kept(problem, gat, 4, "gather") - model.kept(problem, gat, 4, "overlap") == 44000
    wait = model.exchange_seconds(problem, gat, 4, 10)
    assert wait == pytest.approx(2 * rows * 176 * 8 / 1e10 + 12 * model.LATENCY)
    busy = model.compute_seconds(problem, gat, 4)
    assert busy == pytest.approx((5000 * 0.67 * 40 + 1000 * 0.0201 * 1600) / 4 * 1e-9)
    assert model.compute_seconds(problem, gat, 4, speed=2) == pytest.approx(busy / 2)
