"""The command line: gat-ext train, predict, compare, export, partition, info, bench."""

from __future__ import annotations

import codecs
import io
import sys
from contextlib import nullcontext
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from threading import current_thread, main_thread
from typing import Annotated, Any

try:
    import typer
    from rich.console import Console
except ImportError:
    sys.exit("gat-ext needs typer and rich, which are not installed: pip install 'gat_ext[train]'")


from gat_ext import __version__, datasets
from gat_ext.datasets import NodeDataset
from gat_ext.training import (
    commands,
    dist_run,
    files,
    mistakes,
    noise_options,
    options,
    own_data,
    own_options,
    part_data,
    plots,
    process_options,
    processes,
    progress,
)
from gat_ext.training.checkpointed import CHECKPOINT
from gat_ext.training.embedding_loop import EmbeddingRecipe
from gat_ext.training.embedding_run import EmbeddingRunConfig
from gat_ext.training.graph_loop import GraphRecipe
from gat_ext.training.graph_run import GraphRunConfig
from gat_ext.training.kinds import (
    EMBEDDINGS,
    GRAPHS,
    NODES,
    POOLED,
    TYPED,
    default_model,
)
from gat_ext.training.pooled_loop import PooledRecipe
from gat_ext.training.pooled_run import PooledRunConfig
from gat_ext.training.recipes import recipe
from gat_ext.training.run import UNIFORM_CHECKPOINT, RunConfig
from gat_ext.training.torch_settings import settings_of_torch
from gat_ext.training.typed_run import TypedRunConfig

RESULTS = (
    *(CHECKPOINT, UNIFORM_CHECKPOINT, "metrics.json", "embeddings.pt"),
    *("curves.png", "attention.png", "edges.png", "walks.png", "context.png"),
)
"""Files of runs"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sparse graph attention: train a model, predict with it, export it, compare models, cut a "
    "graph into parts, describe the installation, time this machine.",
)
console = Console(highlight=False, markup=False, soft_wrap=True)


def _print_version(given: bool) -> None:
    if given:
        print(f"gat_ext {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    command: typer.Context,
    model: options.Model = None,
    dataset: options.Dataset = None,
    task: options.Task = None,
    root: options.Root = None,
    sha256: options.Sha256 = None,
    data: own_options.Data = None,
    features: own_options.Features = None,
    columns: own_options.Columns = None,
    directed: own_options.Directed = None,
    split: own_options.Split = None,
    split_seed: own_options.SplitSeed = 0,
    noise: noise_options.Noise = None,
    seeds: options.Seeds = 1,
    seed: options.Seed = 0,
    epochs: options.Epochs = None,
    patience: options.Patience = None,
    lr: options.Rate = None,
    weight_decay: options.WeightDecay = None,
    hidden: options.Hidden = None,
    preset: options.Preset = "paper",
    layers: options.Layers = None,
    heads: options.Heads = None,
    attention: noise_options.Attention = "learned",
    reorder: options.Reorder = None,
    bf16: options.Bf16 = False,
    sample: options.Sample = "",
    batch_size: options.BatchSize = None,
    folds: options.Folds = 5,
    subset: options.Subset = None,
    types: options.Types = "label",
    attributes: options.Attributes = False,
    edge_attributes: options.EdgeAttributes = False,
    keep: options.Keep = "best",
    pooling: options.Pooling = "sum",
    walk: options.Walk = "attention",
    eval_agents: options.EvalAgents = 0,
    dim: options.Dim = 128,
    window: options.Window = 10,
    context: options.Context = "learned",
    partition_method: process_options.PartitionMethod = "metis",
    parts: process_options.Parts = None,
    mode: process_options.Mode = "overlap",
    rank_timeout: process_options.RankTimeout = 600.0,
    device: options.Device = "cpu",
    num_threads: options.NumThreads = None,
    deterministic: options.Deterministic = None,
    out: options.Out = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train MODEL on a data set; write metrics, plots and a checkpoint."""
    with mistakes.explained(console):
        launch = processes.launched()
        if parts is not None and dataset is None:
            dataset = part_data.name_of(parts)
    model = model or default_model(dataset, task)
    kind = options.kind_for(model, task, dataset)
    options.refuse_other_options(command, kind, model, dataset)
    own: NodeDataset | None = None
    if kind is NODES:
        clashes = {"--dataset": dataset, "--root": root, "--parts": parts}
        own_options.refuse(command, data, clashes)
    if data is None:
        dataset = options.data_set_for(kind, model, task, dataset)
    else:
        how = own_options.reading(features, columns, directed, split, split_seed, edge_attributes)
        with mistakes.explained(console), mistakes.interruptible():
            own, root = datasets.from_path(data, how), data
        dataset = own.name
    options.refuse_contradictions(
        model, dataset, heads, edge_attributes, dim, sha256, resume, overwrite
    )
    config: Any
    if kind is GRAPHS:
        agents = GraphRecipe(eval_agents=eval_agents, stopping=keep)
        agents = agents.with_overrides(epochs=epochs, lr=lr, patience=patience)
        sizes = {"walk": walk} | _given(hidden_channels=hidden)
        config = GraphRunConfig(
            model, dataset, seed, folds, subset, agents, sizes, types, attributes
        )
    elif kind is POOLED:
        pooled = PooledRecipe(stopping=keep).with_overrides(
            epochs=epochs, lr=lr, weight_decay=weight_decay, patience=patience
        )
        sizes = {"pooling": pooling}
        sizes |= _given(num_layers=layers, hidden_channels=hidden, heads=heads)
        of_folds = (model, dataset, seed, folds, subset, pooled, sizes, types, attributes)
        config = PooledRunConfig(*of_folds, edge_attributes)
    elif kind is EMBEDDINGS:
        walks = EmbeddingRecipe().with_overrides(epochs=epochs, lr=lr, weight_decay=weight_decay)
        sizes = _given(embedding_channels=dim, window=window, context=context)
        config = EmbeddingRunConfig(model, dataset, seed, seeds, walks, sizes)
    else:
        nodes = recipe(model, dataset).with_overrides(
            epochs=epochs, lr=lr, weight_decay=weight_decay, patience=patience, bf16=bf16
        )
        sizes = _given(num_layers=layers, hidden_channels=hidden, heads=heads)
        if kind is TYPED:
            config = TypedRunConfig(model, dataset, seed, seeds, nodes, sizes)
        else:
            if batch_size is not None and not sample:
                raise typer.BadParameter(
                    "it is of sampled batches; give --sample, too", param_hint="--batch-size"
                )
            if noise is not None and dataset != "noisy_digits":
                raise typer.BadParameter(
                    f"it is of noisy_digits, not of {dataset}; leave it out", param_hint="--noise"
                )
            nodes = nodes.with_overrides(sample=sample, batch_size=batch_size)
            recorded = None if own is None else own_data.settings(own, how)
            sizes |= {"attention": attention} if attention != "learned" else {}
            config = RunConfig(
                model, dataset, seed, seeds, nodes, sizes, reorder, own=recorded, noise=noise
            )
    process_options.refuse(launch, kind, model, config, device, root, parts is not None)
    if deterministic and not kind.bitwise:
        num_threads = options.one_thread(num_threads)
    deterministic = kind.bitwise if deterministic is None else deterministic
    name = dataset.removeprefix(own_data.PREFIX).replace(":", "-")
    folder = Path("runs") / f"{model}-{name}" if out is None else out
    shown = console if launch.rank == 0 else Console(quiet=True)
    with (
        mistakes.explained(shown, launch.size),
        processes.joined(launch, device, rank_timeout) as team,
    ):
        plots.require()
        with (
            mistakes.interruptible(),
            files.claimed(folder) if team.is_first else nullcontext(),
            settings_of_torch(num_threads, deterministic) as chosen,
        ):
            found = _results(folder, resume or overwrite) if team.is_first else []
            run: Any
            if team.size == 1 and parts is None:
                loaded = own or kind.load(dataset, root=root, **_given(sha256=sha256, noise=noise))
                run = kind.run(config, loaded.to(device), folder, root)
            else:
                cut = dist_run.Cut(parts, partition_method, mode)
                teller = Console(quiet=True) if quiet else shown
                run = dist_run.start(config, cut, folder, root, team, teller.print)
            if resume:
                run.resume()
            if team.is_first:
                files.remove_parts(folder, RESULTS)
            if overwrite:
                for name in found:
                    (folder / name).unlink()
            if not quiet:
                shown.print(str(chosen))
                if own is not None and own.names is not None and own.names.unread:
                    shown.print(f"Not read: {', '.join(own.names.unread)}")
            progress.train(run, shown, quiet, verbose)


def _results(folder: Path, may_be: bool) -> list[str]:
    """Names of the results in a folder; raises FileExistsError if there may be none."""
    found = [name for name in RESULTS if (folder / name).exists()]
    if found and not may_be:
        raise FileExistsError(
            f"{folder} holds results ({', '.join(found)}): --resume continues that run, "
            "--overwrite deletes them, --out chooses another folder"
        )
    return found


def _given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


commands.add_to(app)


def main() -> None:
    """Runs the command line."""
    codecs.register_error("gat_ext.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="gat_ext.plain")
    try:
        _call()
    finally:
        if current_thread() is main_thread():
            signal(SIGINT, SIG_IGN)  # nothing is left to interrupt


def _call() -> None:
    """Calls the command; of several processes that refuse the same, one says so."""
    try:
        launch = processes.launched()
    except ValueError:
        launch = processes.Launch()  # the command explains what is wrong
    if launch.size == 1:
        app()
        return
    try:
        code = app(standalone_mode=False)
    except _USAGE_ERROR as error:
        with processes.told_once(launch) as tells:
            if tells:
                error.show()  # type: ignore[attr-defined]
        code = 2
    except typer.Abort:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


# Of click, which typer may bring along or contain.
_USAGE_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replaces characters that the encoding of the output lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


_PLAIN = {"±": "+/-", "×": "x", "…": "..."}


if __name__ == "__main__":
    main()
