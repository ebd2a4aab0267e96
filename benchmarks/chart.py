"""Draws the chart of whole layers: time and memory, by library.

    python benchmarks/run.py layers --threads 2 --python dgl=PYTHON --out runs/layers
    python benchmarks/chart.py runs/layers/results.json runs/layers/layers.svg

``tables.py`` draws that of docs/measurements/layers.json.

Needs matplotlib. A layer that a library lacks, or cannot hold in memory, has no bar.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from report import place_and_date

COLORS = {"gat_ext": "#d1495b", "dgl": "#8d99ae", "pyg-compiled": "#b8c0d0", "pyg": "#d9dee7"}
LAYERS = {"gat": "GAT", "agnn": "AGNN", "gatv2": "GATv2", "qkv": "Transformer"}
NAMES = {"gat_ext": "gat_ext", "dgl": "DGL", "pyg-compiled": "PyG, compiled", "pyg": "PyG, eager"}


def figures(record: dict[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """{layer: {peer: (seconds of forward and backward, GB at the peak)}}; only complete figures."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for row in record["rows"]:
        if row["bench"] != "layers" or "total" not in row["median"] or not row["memory"]:
            continue
        layer = LAYERS.get(row["item"], row["item"])
        pair = row["median"]["total"] / 1e3, row["memory"]["peak"] / 1e9
        found.setdefault(layer, {})[row["peer"]] = pair
    return found


def draw(record: dict[str, Any], out: Path) -> None:
    """Writes the chart as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    # The same small file for the same figures.
    matplotlib.rcParams.update({"svg.hashsalt": "layers", "svg.fonttype": "none"})
    from matplotlib import pyplot

    layers = figures(record)
    if not layers:
        raise ValueError("the file has no times and memory of layers; run `layers` with memory")
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 0.85 * len(layers) + 0.8), sharey=True)
    for panel, title, unit in zip(
        panels, ("forward + backward, seconds", "peak memory, GB"), (0, 1), strict=True
    ):
        for at, of_layer in enumerate(layers.values()):
            shown = [peer for peer in COLORS if peer in of_layer]
            for i, peer in enumerate(shown):
                value, y = of_layer[peer][unit], at + 0.2 * (i - (len(shown) - 1) / 2)
                name = NAMES[peer] if at == 0 and unit == 0 else None
                panel.barh(y, value, 0.18, color=COLORS[peer], label=name)
                panel.annotate(
                    f"{value:.2f}", (value, y), (3, 0), textcoords="offset points", va="center",
                    fontsize=7, fontweight="bold" if peer == "gat_ext" else "normal",
                )  # fmt: skip
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_yticks(range(len(layers)), list(layers))
        panel.tick_params(axis="x", labelsize=8)
        panel.margins(x=0.12)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.text(0.99, 0.005, place_and_date(record), ha="right", fontsize=7, color="gray")
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Reads the arguments and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results.json of run.py layers")
    parser.add_argument("out", type=Path, help="the picture, .svg or .png")
    args = parser.parse_args()
    draw(json.loads(args.results.read_text()), args.out)
    print(args.out)


if __name__ == "__main__":
    main()
