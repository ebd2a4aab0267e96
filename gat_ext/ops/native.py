"""Finds the native module and checks that it can be loaded: a sentence, not an undefined symbol."""

from __future__ import annotations

import filecmp
import importlib
import sys
import warnings
from importlib import metadata
from pathlib import Path

import torch

OPERATORS = (
    "edge_attention",
    "extremum",
    "graph_building",
    "head_terms",
    "linear_maps",
    "neighbor_sample",
    "sparse",
    "walk",
)
"""Modules of this package that register fake kernels, gradients and autocast"""

_MEND = "pip install --no-cache-dir --force-reinstall --no-deps"


def built_against() -> str | None:
    """The version of torch that the build wrote into the requirements of the package."""
    try:
        requirements = metadata.requires("gat_ext") or []
    except metadata.PackageNotFoundError:  # a source tree that was built in place
        return None
    for requirement in requirements:
        if requirement.startswith("torch=="):
            return requirement.removeprefix("torch==").split(";")[0].strip()
    return None


def check_torch() -> None:
    """Raises ImportError unless torch is the version that gat_ext was built against."""
    built, found = built_against(), torch.__version__.split("+")[0]
    if built is not None and built != found:
        raise ImportError(
            f"gat_ext was built against torch {built} but torch {found} is installed; "
            f"build it again with `{_MEND} <the gat_ext source folder>`, "
            f"or install that version of torch with `pip install torch=={built}`."
        )


def redirect(path: list[str]) -> bool:
    """Points a source folder without a built extension to the installed package.

    Python started in a clone of the repository finds the clone's folder before the installed
    package. ``path`` is the ``__path__`` of gat_ext and is modified in place; loaded submodules are
    dropped from ``sys.modules``. Returns True if ``path`` was modified.

    Warns:
        UserWarning: the two differ, so that edits of the source would have no effect.
    """
    source = Path(path[0]).resolve()
    if _has_extension(source):
        return False
    folders = [Path(entry or ".", "gat_ext").resolve() for entry in sys.path]
    installed = next((folder for folder in folders if _has_extension(folder)), None)
    if installed is None:
        return False
    if _differ(source, installed):
        warnings.warn(
            f"{source} has no built extension, so the gat_ext installed in {installed} is used, "
            "whose code differs; run `pip install --no-build-isolation -e .` to use the source",
            stacklevel=3,
        )
    path[:] = [str(installed)]
    for name in [name for name in sys.modules if name.startswith("gat_ext.")]:
        del sys.modules[name]
    return True


def _has_extension(folder: Path) -> bool:
    return any(folder.glob("_C*.so"))


def _differ(source: Path, installed: Path) -> bool:
    """True if a module of the source folder is missing or different in the installed package."""
    names = [str(path.relative_to(source)) for path in source.rglob("*.py")]
    return len(filecmp.cmpfiles(source, installed, names, shallow=False)[0]) < len(names)


def load(folder: Path) -> None:
    """Loads the native module of the package in ``folder`` and registers its operators in Python.

    Raises:
        ImportError: the folder is a source folder without a built extension, or the installed torch
            lacks the CUDA that the module was built with.
    """
    try:
        importlib.import_module("gat_ext._C")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{folder} is a source folder of gat_ext without its built extension, and no other "
            f"gat_ext is installed; run `pip install {folder.parent}`, or, to edit the source, "
            "`pip install --no-build-isolation -e .` there"
        ) from error
    except ImportError as error:
        if not any(name in str(error) for name in ("libc10_cuda", "libtorch_cuda", "libcudart")):
            raise
        raise ImportError(
            f"gat_ext was built for a torch with CUDA, but the installed torch {torch.__version__} "
            f"is for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPUs only'}; "
            f"build it again with `{_MEND} <the gat_ext source folder>`, or install the torch it "
            f"was built with. ({error})"
        ) from error
    for name in OPERATORS:
        importlib.import_module(f"gat_ext.ops.{name}")
