"""The work and the options of ``gat-ext export``: a program file of the model of a run."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

from gat_ext import export
from gat_ext.models import PooledModel, TypedModel
from gat_ext.training.options import check_name
from gat_ext.training.saved import SavedRun, load
from gat_ext.training.typed_loop import inputs_of

FORMATS = ("pt2", "onnx")
LARGEST_ERROR = 1e-4  # of a file, beside the largest number of the model's result

Run = Annotated[
    Path, typer.Argument(file_okay=False, help="Folder of a run, which gat-ext train has written.")
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="pt2: a program of torch.export, with the operators of gat_ext. onnx: one of ONNX's "
        "own operators, which needs gat_ext\\[onnx].",
        callback=check_name([*FORMATS], "format"),
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="File to write.  [default: RUN/model.FORMAT]"),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seed, or fold, whose model to export.  [default: that which validated best]"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file.")]


class _Call(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: list[str]


def write(
    folder: Path,
    form: str,
    out: Path | None = None,
    seed: int | None = None,
    root: Path | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Exports the model of a run, and compares the file with it on the data of the run.

    Args:
        folder: of the run.
        form: one of ``FORMATS``.
        out: the file; None: ``model`` in the folder, with the format's suffix.
        seed: of the model, as of :func:`gat_ext.training.load`.
        root: folder of the data set's files, likewise.
        overwrite: replace the file.

    Returns:
        Lines to print.

    Raises:
        FileExistsError: the file exists, without ``overwrite``.
        FileNotFoundError: the folder has no run.
        ImportError: onnx, onnxscript or onnxruntime is not installed, for ONNX.
        TypeError: the model has walking agents, or is one of embeddings.
        ValueError: ``out`` has another suffix than the format, there is no such seed, or the file
            does not compute what the model does; then nothing is written.
    """
    out = folder / f"model.{form}" if out is None else out
    if out.suffix != f".{form}":
        raise ValueError(f"{out} has the suffix {out.suffix!r}; expected .{form}, the format's")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists: --overwrite replaces it, --out chooses another file")
    saved = load(folder, seed, root=root)
    export.check(saved.model)
    call = _call_of(saved)
    part = out.with_name(f".{os.getpid()}.{out.name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet():
            if form == "onnx":
                names = {"input_names": call.names, "output_names": ["logits"]}
                export.to_onnx(saved.model, call.args, part, kwargs=call.kwargs, **names)
            else:
                export.to_program(saved.model, call.args, part, kwargs=call.kwargs)
            difference = export.largest_difference(part, saved.model, call.args, call.kwargs)
        with torch.no_grad():
            largest = float(saved.model(*call.args, **call.kwargs).abs().max())
        if not difference <= LARGEST_ERROR * max(1.0, largest):
            raise ValueError(
                f"the {form} program differs from the model by {difference:.1e} on "
                f"{saved.data.name}, whose largest logit is {largest:.1e}; nothing was written: "
                f"expected at most {LARGEST_ERROR:g} of it"
            )
        os.replace(part, out)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return [
        f"{saved.config.model} of seed {saved.seed}, inputs {', '.join(call.names)}; the numbers "
        "of nodes and edges vary",
        f"Largest difference from the model on {saved.data.name}: {difference:.1e}",
        f"Program: {out} ({out.stat().st_size / 1e6:.2f} MB)",
    ]


def _call_of(saved: SavedRun) -> _Call:
    """A call of the model on the data of the run, and the names of its tensors."""
    model, data = saved.model, saved.data
    if isinstance(model, TypedModel):
        inputs: Any = inputs_of(model, data)  # type: ignore[arg-type]
        x, edges = inputs
        names = [f"x_{kind}" for kind in x]
        return _Call(tuple(inputs), {}, [*names, *("_".join(("edge_index", *r)) for r in edges)])
    pooled = isinstance(model, PooledModel)
    kwargs = {"node_ptr": data.node_ptr} if pooled else {}  # type: ignore[union-attr]
    network: Any = model.network if pooled else model
    if network.edge_dim is not None:
        kwargs["edge_attr"] = data.edge_attr  # type: ignore[union-attr]
    return _Call((data.x, data.edge_index), kwargs, ["x", "edge_index", *kwargs])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch's exporter about packages that the program does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
