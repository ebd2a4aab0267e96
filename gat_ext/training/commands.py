"""The commands of gat-ext that train no model: predict, compare, export, partition, info, bench."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from gat_ext import _C, __version__, datasets, distributed
from gat_ext.distributed.storage import check_free
from gat_ext.training import (
    export_command,
    files,
    mistakes,
    noise_options,
    noise_study,
    options,
    partition_options,
    plots,
    threads,
)
from gat_ext.training.compare import compare as timed
from gat_ext.training.kinds import MODEL_NAMES
from gat_ext.training.predict_command import predict
from gat_ext.training.torch_settings import settings_of_torch

console = Console(highlight=False, markup=False, soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (predict, compare, export, partition, info, bench):
        app.command()(command)


def compare(
    models: noise_options.Models = "gat,gatv2,agnn,transformer",
    noise: noise_options.Ratios = "0,0.5,1,2,4",
    seeds: noise_options.Seeds = 5,
    epochs: noise_options.Epochs = None,
    num_threads: options.NumThreads = None,
    out: noise_options.Out = Path("runs/compare.json"),
    chart: noise_options.Chart = None,
) -> None:
    """Compare learned with uniform attention on graphs with more and more random edges.

    Of noisy_digits, with and without the graph. Results are in a file, and the same command
    continues it. A chart is drawn from it.
    """
    with (
        mistakes.explained(console),
        mistakes.interruptible(),
        settings_of_torch(num_threads, deterministic=True) as chosen,
    ):
        plots.require()
        path = out.with_suffix(".svg") if chart is None else chart
        if path == out:
            raise typer.BadParameter(f"--out and the chart are one file, {out}; name a .json file")
        ratios, names = noise_options.ratios_of(noise), noise_options.models_of(models)
        with files.claimed(out.parent):
            study = noise_study.Study(out, names, ratios, seeds, epochs)
            console.print(str(chosen))
            study.run(console.print)
            study.draw(path)
        console.print("Test accuracy [%], and the weight of a true edge over that of a random one")
        console.print(study.table())
        console.print(f"Results: {out}, chart: {path}")


def export(
    run: export_command.Run,
    form: export_command.Format = "pt2",
    out: export_command.Out = None,
    seed: export_command.Seed = None,
    root: options.Root = None,
    overwrite: export_command.Overwrite = False,
) -> None:
    """Write the model of RUN to a file for PyTorch, C++ or ONNX runtimes; compare it with RUN."""
    with mistakes.explained(console), mistakes.interruptible():
        for line in export_command.write(run, form, out, seed, root, overwrite):
            console.print(line)


def partition(
    dataset: partition_options.Dataset,
    parts: partition_options.Parts,
    out: partition_options.Out,
    method: partition_options.Method = "metis",
    seed: partition_options.Seed = 0,
    root: options.Root = None,
    overwrite: partition_options.Overwrite = False,
) -> None:
    """Cut the graph of DATASET into parts; write a folder for each, with features and labels."""
    with mistakes.explained(console), mistakes.interruptible():
        check_free(out, overwrite)  # before the work
        data = datasets.load(dataset, root=root)
        found = distributed.partition(data.graph, parts, method, seed=seed)
        distributed.save(out, data, found, overwrite=overwrite)
        console.print(f"{data.name}: {data.num_nodes:,} nodes, {parts} parts by {method}")
        console.print(str(found.report))
        console.print(f"Parts: {out}/")


def info() -> None:
    """Describe the installation and the machine."""
    table = Table(show_header=False, box=None)
    rows = {"gat_ext": __version__, "torch": torch.__version__}
    rows |= {"numpy": np.__version__, "python": platform.python_version()}
    rows |= {f"built with {name}": str(value) for name, value in _C.build_info().items()}
    number, why = threads.choose()
    rows |= {
        "instruction set": _C.isa(),
        "CUDA": f"{torch.version.cuda or 'none'} of torch, "
        f"{torch.cuda.device_count() if torch.cuda.is_available() else 'no'} GPU",
        "threads": f"{number} ({why})",
        "devices": ", ".join(f"{device} ({what})" for device, what in options.devices().items()),
        "scores": ", ".join(_C.score_traits()),
    }
    rows |= {"models": ", ".join(MODEL_NAMES)}
    names = *datasets.available(), *datasets.available_typed(), *datasets.available_graphs()
    rows |= {"data sets": ", ".join(names)}
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def bench(num_threads: options.NumThreads = None) -> None:
    """Time GAT's attention, forward and backward, against dense masked PyTorch."""
    table = Table("nodes", "edges", "dense [ms]", "fused [ms]", "ratio", box=None)
    with (
        mistakes.explained(console),
        mistakes.interruptible(),
        settings_of_torch(num_threads) as chosen,
    ):
        for num_nodes in (250, 500, 1000, 2000):
            row = timed(num_nodes, degree=10)
            table.add_row(
                str(row.num_nodes),
                str(row.num_edges),
                f"{row.dense:.2f}",
                f"{row.fused:.2f}",
                f"{row.dense / row.fused:.1f}",
            )
        console.print(f"4 heads × 16 channels, float32, {chosen}; results agree; medians")
        console.print(table)
