"""``gat-ext compare``: accuracy of learned and of uniform attention by the share of random edges.

Results are in a JSON file, which a later call continues, and from which the chart is drawn.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table

from gat_ext import datasets
from gat_ext.datasets import NodeDataset
from gat_ext.models import build
from gat_ext.training import checkpoint, plots
from gat_ext.training.edge_weights import edge_weights
from gat_ext.training.files import replacing
from gat_ext.training.loop import Trainer
from gat_ext.training.metrics import ACCURACY, logistic_regression
from gat_ext.training.recipes import Recipe, recipe
from gat_ext.training.run import RunConfig
from gat_ext.training.settings import differences

DATASET = "noisy_digits"
ATTENTION = ("learned", "uniform")
NO_GRAPH = "logistic regression"
_FORMAT = 1


class Case(NamedTuple):
    """One training.

    Attributes:
        model: its name; or ``NO_GRAPH``, whose attention is "" and whose noise is 0.
        attention: one of ``ATTENTION``.
        noise: random edges for each other edge.
        seed: of the random edges, the split and the weights.
    """

    model: str
    attention: str
    noise: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a training gave.

    Attributes:
        test: accuracy on the test nodes, from 0 to 1.
        validation: likewise.
        weights: mean attention weight of a true edge, of a random one, and of a random one between
            nodes of the same class; empty without random edges.
    """

    test: float
    validation: float
    weights: list[float]


class Study:
    """The results in a file, and what is to be measured.

    Args:
        path: JSON file; need not exist.
        models: names of models of nodes.
        noise: random edges for each other edge, of each graph.
        seeds: trainings of each model on each noise.
        epochs: highest number, in place of the recipes'; None leaves them.

    Raises:
        ValueError: the file is damaged, or has results of other settings.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "study.json"
        >>> study = Study(path, ["agnn"], [1.0], seeds=1, epochs=2)
        >>> study.run(lambda line: None)
        >>> [case.attention for case in Study(path, ["agnn"], [1.0], 1, 2).results]
        ['', 'learned', 'uniform']
    """

    def __init__(
        self,
        path: Path,
        models: Sequence[str],
        noise: Sequence[float],
        seeds: int,
        epochs: int | None = None,
    ) -> None:
        self.path, self.models, self.noise, self.seeds = path, list(models), list(noise), seeds
        self._recipes = {
            model: recipe(model, DATASET).with_overrides(epochs=epochs) for model in models
        }
        self.results: dict[Case, Outcome] = {}
        self._read: dict[str, Any] = {}  # settings of the models in the file
        if path.exists():
            with checkpoint.named(path):
                self._load()

    # ---- the file

    def _load(self) -> None:
        state = json.loads(self.path.read_bytes())
        like = {"case": ["", "", 0.0, 0], "test": 0.0, "validation": 0.0}
        like["weights"] = checkpoint.ListOf(0.0)
        results = checkpoint.ListOf(like)
        anything = checkpoint.ANYTHING
        checkpoint.check(state, {"format": 1, "settings": anything, "results": results}, "it")
        if state["format"] != _FORMAT:
            raise ValueError(f"its format is {state['format']}; expected {_FORMAT}")
        if not isinstance(state["settings"], dict):
            raise ValueError("its settings are not those of models by name")
        for model in self._recipes.keys() & state["settings"].keys():
            there, here = state["settings"][model], self._settings(model)
            found = differences(there if isinstance(there, dict) else {}, here, frozenset())
            if found:
                raise ValueError(
                    f"its results of {model} are of other settings: {'; '.join(found)}. Give the "
                    "same options, or another --out"
                )
        self._read = state["settings"]
        for one in state["results"]:
            model, attention, noise, seed = one.pop("case")
            self.results[Case(model, attention, float(noise), seed)] = Outcome(**one)

    def _settings(self, model: str) -> dict[str, Any]:
        sizes = build(model).preset(DATASET, 64, 10).parameters()
        return {
            "parameters": sum(tensor.numel() for tensor in sizes),
            "recipe": asdict(self._recipes[model]),
        }

    def _save(self) -> None:
        settings = self._read | {model: self._settings(model) for model in self.models}
        lines = [
            json.dumps({"case": list(case), **asdict(one)}) for case, one in self.results.items()
        ]
        text = f'{{"format": {_FORMAT},\n"settings": {json.dumps(settings, indent=1)},\n'
        with replacing(self.path) as file:
            file.write((text + '"results": [\n' + ",\n".join(lines) + "\n]}\n").encode())

    # ---- measuring

    def _cases(self) -> Iterator[Case]:
        """What is to be measured; every seed completes a chart."""
        for seed in range(self.seeds):
            yield Case(NO_GRAPH, "", 0.0, seed)
            for noise in self.noise:
                for model in self.models:
                    yield from (Case(model, attention, noise, seed) for attention in ATTENTION)

    def run(self, show: Callable[[str], None]) -> None:
        """Measures what the file lacks, and writes it after each training.

        Args:
            show: is given a line about each.

        Raises:
            OSError: the file cannot be written.
        """
        cases = list(self._cases())
        missing = [case for case in cases if case not in self.results]
        if len(missing) < len(cases):
            show(f"{self.path} has {len(cases) - len(missing)} of {len(cases)} results")
        data: dict[tuple[float, int], NodeDataset] = {}
        for number, case in enumerate(missing, start=len(cases) - len(missing) + 1):
            key = case.noise, case.seed
            if key not in data:
                data = {key: datasets.load(DATASET, noise=case.noise, seed=case.seed)}
            outcome = _measure(case, data[key], self._recipes)
            self.results[case] = outcome
            self._save()
            name = " ".join(filter(None, case[:2]))
            show(
                f"{number} of {len(cases)}: {name}, noise {case.noise:g}, seed {case.seed}: "
                f"test {ACCURACY.text(outcome.test)}"
            )

    # ---- the outcome

    def of(self, model: str, attention: str, noise: float) -> list[Outcome]:
        """The results of all seeds that were asked for."""
        cases = (Case(model, attention, noise, seed) for seed in range(self.seeds))
        return [self.results[case] for case in cases if case in self.results]

    def table(self) -> Table:
        """Test accuracies in percent, and how many times a random edge's weight a true one has."""
        table = Table("model", "attention", *(f"noise {noise:g}" for noise in self.noise), box=None)
        for model in self.models:
            for attention in ATTENTION:
                cells = [_cell(self.of(model, attention, noise)) for noise in self.noise]
                table.add_row(model, attention, *cells)
        table.add_row(NO_GRAPH, "", _cell(self.of(NO_GRAPH, "", 0.0)))
        return table

    def draw(self, path: Path) -> None:
        """A panel for each model: accuracy with learned and with uniform attention.

        Args:
            path: SVG or PNG to write.
        """
        count = len(self.models)
        figure, grid = plots.require().subplots(
            1,
            count,
            figsize=(2.6 * count + 0.8, 3.6),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        shares = [100 * noise / (1 + noise) for noise in self.noise]
        plain = _mean(self.of(NO_GRAPH, "", 0.0))[0]
        styles = zip(ATTENTION, (plots.BLUE, plots.ORANGE), ("o-", "s--"), strict=True)
        for attention, colour, style in styles:
            for axes, model in zip(grid[0], self.models, strict=True):
                points = [_mean(self.of(model, attention, noise)) for noise in self.noise]
                mean, deviation = torch.tensor(points).T
                axes.plot(shares, mean, style, color=colour, label=attention, markersize=4)
                band = mean - deviation, mean + deviation
                axes.fill_between(shares, *band, color=colour, alpha=0.2, linewidth=0)
        for axes, model in zip(grid[0], self.models, strict=True):
            axes.axhline(plain, color="black", linewidth=1, linestyle=":", label="without graph")
            axes.set_title(build(model).__name__)
            axes.set_xticks(shares, [f"{share:.0f}" for share in shares])
            axes.grid(alpha=0.3)
        grid[0, 0].set_ylabel("test accuracy [%]")
        figure.supxlabel("random edges [% of all]", fontsize=10)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        labels[:2] = [f"{label} attention" for label in labels[:2]]
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
        plots.save(figure, path)


def _measure(case: Case, data: NodeDataset, recipes: dict[str, Recipe]) -> Outcome:
    if case.model == NO_GRAPH:
        fit = logistic_regression(data.x, data)
        return Outcome(fit.score(data.x, data.y, data.test_mask), fit.val_score, [])
    options = {"attention": case.attention}
    config = RunConfig(case.model, DATASET, case.seed, 1, recipes[case.model], options)
    trainer = Trainer(lambda: config.make_model(data), data, config.recipe, case.seed)
    while trainer.step():
        pass
    result, weights = trainer.result(), list[float]()
    if case.noise > 0:
        layers = trainer.model.attention_weights(data.x, data.edge_index)
        weights = list(asdict(edge_weights(layers, data)).values())
    return Outcome(result.test_score, result.val_score, weights)


def _mean(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Mean and sample standard deviation of the test accuracy, in percent."""
    scores = [100 * one.test for one in outcomes]
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0


def _cell(outcomes: Sequence[Outcome]) -> str:
    mean, deviation = _mean(outcomes)
    ratios = [one.weights[0] / one.weights[1] for one in outcomes if one.weights]
    times = f" ({statistics.fmean(ratios):.1f}×)" if ratios else ""
    spread = f" ± {deviation:.1f}" if len(outcomes) > 1 else ""
    return f"{mean:.1f}{spread}{times}"
