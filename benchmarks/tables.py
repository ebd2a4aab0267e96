"""The tables of docs/benchmarks.md, from the files of docs/measurements.

    python benchmarks/tables.py               writes the tables and the chart of the layers
    python benchmarks/tables.py --check       compares the tables; exit status 1 if one differs
    python benchmarks/tables.py --commands    how to measure each file again

A table is the text between ``<!-- table: NAME -->`` and ``<!-- /table -->``, and states the
machine, the day, the versions and the command that its file has. Where the files of a table are
absent, its text stays as it was written by hand; ``--check`` names these tables.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import chart
from renderers import Record, by_peer, graph_of, groups, layers, mean, source, sweeps

ROOT = Path(__file__).resolve().parent.parent
PAGE, MEASUREMENTS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "measurements"
CHART = ROOT / "docs" / "images" / "layers.svg"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A table and its measurements.

    Attributes:
        render: the Markdown of the records.
        runs: for each file, by its name, the arguments of ``run.py`` that measure it.
        title: a heading above the table, if the page has none.
    """

    render: Callable[[Sequence[Record]], str]
    runs: Mapping[str, str]
    title: str = ""


_DGL = "--python dgl=PYTHON"
_LIBRARIES = "gat_ext pyg pyg-compiled dgl"
_CORA = "--heads 8 --channels 8 --threads 2"
_TOTAL = "Milliseconds of forward and backward; in brackets over gat_ext"
TABLES: dict[str, Table] = {
    "layers": Table(layers, {"layers": f"layers --threads 2 {_DGL}"}),
    "epoch": Table(
        by_peer("Milliseconds of an epoch; in brackets over gat_ext", name=graph_of),
        {
            f"epoch_{data}": f"epoch --graph {data} {_CORA} --peers {_LIBRARIES} {_DGL}"
            for data in ("cora", "citeseer")
        },
    ),
    "small": Table(
        by_peer(_TOTAL),
        {
            "small": "layers --nodes 10 --degree 3 --channels 8 --threads 1 --no-memory"
            " --peers gat_ext gat_ext-compiled pyg pyg-compiled"
        },
    ),
    "compiled": Table(
        by_peer(
            "Milliseconds of forward, backward and, in an epoch, the optimizer; in brackets over "
            "gat_ext"
        ),
        {"compiled": "epoch layers --threads 2 --no-memory --peers gat_ext gat_ext-compiled"},
    ),
    "edges": Table(
        by_peer(_TOTAL),
        {
            "edges": "edges --edge-dim 11 --heads 8 --channels 128 --nodes 20000 --threads 2"
            " --peers gat_ext pyg"
        },
        title="## Layers with edge features",
    ),
    "typed": Table(
        by_peer(_TOTAL),
        {"typed": "typed --nodes 194100 --degree 10 --threads 2 --peers gat_ext pyg"},
        title="## Nodes of several types",
    ),
    "sweeps": Table(sweeps, {"sweeps": "sweeps --threads 2"}),
    "operators": Table(
        by_peer(_TOTAL),
        {"operators": f"operators --threads 2 --peers gat_ext pyg dgl {_DGL}"},
        title="### Operators beside other libraries",
    ),
    "distributed": Table(groups, {"distributed": "distributed --graph mesh --nodes 500000"}),
    "partition": Table(
        groups,
        {"partition": "partition --graph mesh --nodes 500000"},
        title="### Cutting a graph into parts",
    ),
    "sampling": Table(groups, {"sampling": f"sampling --threads 2 {_DGL}"}),
    "walks": Table(groups, {"walk": "walk", "gam": "gam"}),
    "busy": Table(
        by_peer(
            "Means of an epoch in milliseconds; in brackets over the same library's on the quiet "
            "machine",
            mean,
            lambda record, row: row.title.rsplit(", ", 1)[1],
        ),
        {"busy": f"busy --graph cora {_CORA} --peers gat_ext pyg"},
    ),
}


# ---- the page


def absent(name: str, folder: Path = MEASUREMENTS) -> list[str]:
    """The files that a table needs and that are not there."""
    return [run for run in TABLES[name].runs if not (folder / f"{run}.json").is_file()]


def block(name: str, folder: Path = MEASUREMENTS) -> str:
    """The text of a table."""
    known = TABLES[name]
    records = [json.loads((folder / f"{run}.json").read_text()) for run in known.runs]
    sources = [source(run, record) for run, record in zip(known.runs, records, strict=True)]
    title = [known.title] if known.title else []
    return "\n\n".join([*title, known.render(records), *sources])


def rewrite(text: str, folder: Path = MEASUREMENTS) -> str:
    """The page with the tables of all measurements that are there.

    Raises:
        ValueError: a table has no place in the page, or more than one.
    """
    places = [name for _, name, _, _ in BLOCK.findall(text)]
    if sorted(places) != sorted(TABLES):
        raise ValueError(f"the page has tables {sorted(places)}; expected {sorted(TABLES)}")

    def replace(match: re.Match[str]) -> str:
        if absent(match[2], folder):
            return match[0]
        return f"{match[1]}\n{block(match[2], folder)}\n\n{match[4]}"

    return BLOCK.sub(replace, text)


def main() -> int:
    """Writes or compares; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare the tables")
    parser.add_argument("--commands", action="store_true", help="print how to measure")
    args = parser.parse_args()
    if args.commands:
        for known in TABLES.values():
            for run, arguments in known.runs.items():
                print(f"python benchmarks/run.py {arguments} --out docs/measurements/{run}.json")
        return 0
    text = PAGE.read_text()
    found = rewrite(text)
    by_hand = [name for name in TABLES if absent(name)]
    print(f"by hand, without a file of measurements: {', '.join(by_hand) or 'none'}")
    if args.check:
        print(f"{PAGE.name} {'has' if found == text else 'does not have'} the figures of the files")
        return int(found != text)
    PAGE.write_text(found)
    chart.draw(json.loads((MEASUREMENTS / "layers.json").read_text()), CHART)
    return 0


if __name__ == "__main__":
    sys.exit(main())
