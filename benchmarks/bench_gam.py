"""A training epoch of the walking models on NCI1: all 4,110 graphs, with the papers' settings.

    python benchmarks/run.py gam

GAM (20 agents per graph, 12 steps, an LSTM of 156) and GAM with memory (10 agents), batches of 32
graphs: forward, backward and Adam. Before timing, the walks are compared with those of the
reference for the same random numbers. NCI1 is read from the folder in GAT_EXT_DATA, or from the
cache; without it, the benchmark is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from report import LEFT_OUT, WRONG, Row
from session import Session
from timing import interleave

from gat_ext.datasets import Fold, GraphDataset, load_graphs
from gat_ext.models import available_graphs, build_graphs
from gat_ext.reference.walk import uniform_numbers, walk_step
from gat_ext.training.graph_loop import GraphRecipe, GraphTrainer

ROUNDS = 3
COMPARED = 200  # agents
_TITLE = "training epoch of a walking model"


def trainer(name: str, data: GraphDataset) -> GraphTrainer:
    """A trainer of a model on all graphs."""
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
    """Number of moves that differ from the reference's for equal ranks and random numbers."""
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


def _epoch(training: GraphTrainer) -> Callable[[], dict[str, float]]:
    def step() -> dict[str, float]:
        start = time.perf_counter()
        training.step()
        return {"total": 1e3 * (time.perf_counter() - start)}

    return step


def measure(session: Session) -> Iterator[list[Row]]:
    """A row for each model, after one epoch as warm-up."""
    try:
        data = load_graphs("tu:NCI1")
    except (OSError, ValueError, ImportError) as error:
        yield [Row("gam", "gam", _TITLE, "gat_ext", status=LEFT_OUT, note=str(error))]
        return
    wrong = differing_walks(data)
    if wrong:
        note = f"{wrong} moves differ from the reference's"
        yield [Row("gam", "gam", _TITLE, "gat_ext", status=WRONG, note=note)]
        return
    steps = {name: _epoch(trainer(name, data)) for name in available_graphs()}
    for step in steps.values():
        step()
    samples, _ = interleave(steps, ROUNDS)
    title = f"{_TITLE}, {len(data):,} graphs of {data.name}, {torch.get_num_threads()} threads"
    yield [Row("gam", name, title, name, samples=found) for name, found in samples.items()]
