"""A training epoch of the walking models on NCI1: all 4,110 graphs, with the papers' settings.

    python benchmarks/run.py gam --out DIR

GAM (20 agents a graph, 12 steps, an LSTM of 156) and GAM with memory (10 agents), batches of 32
graphs: forward, backward and Adam. Before anything is timed, the walks are compared with the slow
oracle's for the same random numbers. NCI1 is read from the folder that GAT_EXT_DATA names, or from
the cache; where it is in neither, the benchmark is left out. The folder of --out gets gam.json.
Exit status 1 where walks differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The package built in place; an installed one comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import torch

from gat_ext.datasets import Fold, GraphDataset, load_graphs
from gat_ext.models import available_graphs, build_graphs
from gat_ext.reference.walk import uniform_numbers, walk_step
from gat_ext.training.graph_loop import GraphRecipe, GraphTrainer

ITEMS: dict[str, Any] = {}  # No other library has the model.

ROUNDS = 3
COMPARED = 200  # agents


def trainer(name: str, data: GraphDataset) -> GraphTrainer:
    """Of a model, with all graphs but one to train on."""
    graphs = torch.arange(len(data))
    fold = Fold(graphs, graphs[:1], graphs[:1])
    preset = build_graphs(name).preset
    return GraphTrainer(
        lambda: preset(data.name, data.num_types, data.num_classes),
        data,
        fold,
        GraphRecipe(epochs=1000, patience=1000),
        seed=0,
    )


def differing_walks(data: GraphDataset) -> int:
    """How many moves of some agents are not those of the oracle, given the same ranks and numbers."""
    agent = trainer("gam", data).model.agent
    start = torch.arange(COMPARED) * (data.num_nodes // COMPARED)
    walks = agent(data.graph, data.node_type, start, 12, seed=torch.tensor([7]))
    differing = 0
    for step in range(12):
        uniform = uniform_numbers(7, COMPARED, step)
        rank = walks.rank[:, step].detach()
        moved, _ = walk_step(data.graph, walks.nodes[:, step], rank, data.node_type, uniform)
        differing += int((moved != walks.nodes[:, step + 1]).sum())
    return differing


def measure(name: str, data: GraphDataset) -> dict[str, Any]:
    """Seconds of an epoch: all of its rounds, and their median; the first, unmeasured, warms up."""
    training = trainer(name, data)
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        training.step()
        seconds.append(time.perf_counter() - start)
    model = training.model
    return {
        "model": name,
        "graphs": len(data),
        "agents": model.num_agents,
        "steps": model.num_steps,
        "threads": torch.get_num_threads(),
        "seconds": seconds[1:],
        "median": statistics.median(seconds[1:]),
    }


def run_alone(out: Path) -> int:
    """What ``run.py gam`` does."""
    try:
        data = load_graphs("tu:NCI1")
    except (OSError, ValueError, ImportError) as error:
        print(f"walking models left out: {error}")
        return 0
    wrong = differing_walks(data)
    if wrong:
        print(f"ERROR {wrong} moves differ from the oracle's", file=sys.stderr)
        return 1
    print(f"\nwalking models: an epoch on {len(data):,} graphs of {data.name}, {ROUNDS} rounds")
    rows = []
    for name in available_graphs():
        rows.append(measure(name, data))
        row = rows[-1]
        print(
            f"  {name:8} {row['agents']} agents, {row['steps']} steps, {row['threads']} threads:"
            f" {row['median']:.1f} s"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "gam.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gam"), help="folder (%(default)s)")
    return run_alone(parser.parse_args(argv).out)


if __name__ == "__main__":
    sys.exit(main())
