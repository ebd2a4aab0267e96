"""The figures of docs/benchmarks.md and of the README are those of the committed measurements."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Smaller runs: of a graph that is drawn, of the layer, and of rounds.
TINY = ["--nodes", "300", "--degree", "5", "--heads", "2", "--channels", "4", "--repeats", "2"]
# Their sizes are fixed, or they need a data set.
FIXED = {"sweeps", "gam"}
RANGE = r"(\d+(?:\.\d+)?) to (\d+(?:\.\d+)?)"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def tables(benchmarks):
    return benchmarks("tables")


def test_the_page_has_the_figures_of_the_measurements(tables) -> None:
    text = tables.PAGE.read_text()
    assert tables.rewrite(text) == text, "run: python benchmarks/tables.py"
    assert not tables.absent("layers")
    of_tables = {run for known in tables.TABLES.values() for run in known.runs}
    files = {path.stem for path in tables.MEASUREMENTS.glob("*.json")}
    assert files - of_tables == {"noisy_digits"}


def test_the_readme_has_the_figures_of_the_layers(tables) -> None:
    """Ranges over the layers, with the decimals that the text has."""
    from report import read_rows

    record = json.loads((tables.MEASUREMENTS / "layers.json").read_text())
    rows = [row for row in read_rows(record) if row.timed]
    text = " ".join((ROOT / "README.md").read_text().split())

    def check(shown: tuple[str, str], values: list[float]) -> None:
        for number, value in zip(shown, (min(values), max(values)), strict=True):
            decimals = len(number.partition(".")[2])
            assert f"{value:.{decimals}f}" == number, (number, value)

    faster = re.findall(rf"{RANGE} times as fast as (PyG compiled|PyG|DGL)", text)
    assert [name for *_, name in faster] == ["PyG", "PyG compiled", "DGL"]
    for (low, high, _), peer in zip(faster, ("pyg", "pyg-compiled", "dgl"), strict=True):
        check((low, high), [row.ratio["total"] for row in rows if row.peer == peer])
    found = re.search(rf"{RANGE} GB where PyG takes {RANGE}", text)
    assert found is not None
    for shown, peer in ((found.groups()[:2], "gat_ext"), (found.groups()[2:], "pyg")):
        check(shown, [row.memory["peak"] / 1e9 for row in rows if row.peer == peer])


def test_a_table_without_its_files_keeps_its_text(tables, tmp_path) -> None:
    text = tables.PAGE.read_text()
    assert tables.rewrite(text, tmp_path) == text
    with pytest.raises(ValueError, match="the page has tables"):
        tables.rewrite(text.replace("<!-- table: busy -->", ""))


def test_committed_files_have_no_paths_of_a_machine(benchmarks) -> None:
    run = benchmarks("run")
    given = ["gat", "--python", "dgl=/opt/dgl/python", "--root", "/data", "--out", "/tmp/x.json"]
    shown = ["gat", "--python", "dgl=PYTHON", "--root", "FOLDER"]
    assert run.shown_command(given) == ["benchmarks/run.py", *shown]


def test_the_table_of_sweeps(tables, tmp_path) -> None:
    from report import Row, read_rows, write_json

    setting = {"graph": "uniform", "heads": 4, "channels": 32, "dtype": "float32"}
    setting |= {"threads": 2, "device": "cpu"}

    def point(item: str, sweep: str, label: str, time: float, **more) -> Row:
        samples = {part: [time] * 3 for part in ("forward", "total", "gather")}
        ratio = {"forward": time / 2, "total": time / 4}
        row = Row("sweeps", item, f"{sweep}: {item}", label, setting=setting, nodes=10, edges=100)
        return Row(**{**asdict(row), "samples": samples, "ratio": ratio, **more})

    memory = {"peak": 5_000_000_000, "increase": 3_000, "kept": 1_400}
    rows = [
        point("gat_attention", "threads", "1", 4.0),
        point("gat_attention", "threads", "2", 2.0),
        point("gat_attention", "edges E, N = E / 30", "1000", 2.0),
        point("gat_attention", "edges E, N = E / 30", "4000", 3.0),
        point("gat_attention", "memory of a step", "standard", 8.0, gathers=1, memory=memory),
        point("gat_epoch_wide", "", "4000", 9000.0, memory=memory),
        Row("sweeps", "graph", "building", "Graph(edge_index)", samples={"total": [2000.0]}),
    ]
    for name in ("sweeps", "twice"):  # what is read is what was written
        config = {"machine": {"cpu": "A CPU", "vectors": "avx2", "cores": 2, "memory": 2**32}}
        config |= {"started": "2026-01-02T03:04:05", "command": ["benchmarks/run.py", "sweeps"]}
        write_json(tmp_path / f"{name}.json", config | {"versions": {}}, rows)
        rows = read_rows(json.loads((tmp_path / f"{name}.json").read_text()))
    assert (tmp_path / "sweeps.json").read_text() == (tmp_path / "twice.json").read_text()
    text = " ".join(tables.block("sweeps", tmp_path).split())
    for line in (
        "| forward over the limit | 1.00 | | | |",
        "| one thread over two, forward / both | 2.0 / 1.0 | | | |",
        "| most edges over fewest, forward / both | 1.5 / 0.75 | | | |",
        "| memory of a step beyond its results, of E · H · 4 bytes | 1.00 | | | |",
        "takes 9.0 s and 5.0 GB at its peak; building that graph 2.00 s.",
        "A CPU with AVX2, 2 cores, 4 GiB, 2026-01-02 ([sweeps.json]",
        ": python benchmarks/run.py sweeps",
    ):
        assert line in text


def of_every_table():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return [name for name in importlib.import_module("tables").TABLES if name not in FIXED]


@pytest.mark.slow
@pytest.mark.parametrize("name", of_every_table())
def test_a_table_of_each_benchmark(name, tables, benchmarks, tmp_path) -> None:
    pytest.importorskip("torch_geometric")
    from report import place_and_date

    run = benchmarks("run")
    other = {"cora": "uniform", "citeseer": "power-law", "pyg-compiled": "pyg"}
    for file, command in tables.TABLES[name].runs.items():
        if file not in FIXED:
            words = command.replace(tables._DGL, "").replace(" dgl", "").split()
            arguments = [other.get(word, word) for word in words]
            assert (
                run.main(
                    [
                        *arguments,
                        *TINY,
                        "--min-seconds",
                        "0",
                        "--out",
                        str(tmp_path / f"{file}.json"),
                    ]
                )
                == 0
            )
        else:
            config = json.loads((tmp_path / "walk.json").read_text()) | {"rows": []}
            (tmp_path / f"{file}.json").write_text(json.dumps(config))
    text = tables.block(name, tmp_path)
    record = json.loads((tmp_path / f"{file}.json").read_text())
    assert place_and_date(record) in text.replace("\n", " ")
    assert re.search(r"\| \*\*[\d.]+|\| +[\d.]+ ", text), text
    assert tables.rewrite(tables.PAGE.read_text(), tmp_path).count(text) == 1
