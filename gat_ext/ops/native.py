"""Finds out, before the native module is loaded, whether it can be: one clear sentence instead of an undefined symbol."""

from __future__ import annotations

import importlib
from importlib import metadata

import torch

OPERATORS = (
    *("graph_building", "linear_maps", "sparse", "walk"),
    *("edge_attention", "adjacency_attention"),
)
"""Modules of this folder that register fake kernels, gradients and autocast"""

_MEND = "pip install --no-cache-dir --force-reinstall --no-deps"


def built_against() -> str | None:
    """The version of torch in the requirement that the build wrote into the package's metadata."""
    try:
        requirements = metadata.requires("gat_ext") or []
    except metadata.PackageNotFoundError:  # running from a source tree that was built in place
        return None
    for requirement in requirements:
        if requirement.startswith("torch=="):
            return requirement.removeprefix("torch==").split(";")[0].strip()
    return None


def check_torch() -> None:
    """Raises ImportError where torch is not the one that gat_ext was built against."""
    built, found = built_against(), torch.__version__.split("+")[0]
    if built is not None and built != found:
        raise ImportError(
            f"gat_ext was built against torch {built} but torch {found} is installed; "
            f"build it again with `{_MEND} <the gat_ext source folder>`, "
            f"or install the torch it knows with `pip install torch=={built}`."
        )


def load() -> None:
    """Loads the native module, and what Python registers for its operators.

    Raises:
        ImportError: in one sentence, where the torch here lacks the CUDA that the module was built
            with.
    """
    try:
        importlib.import_module("gat_ext._C")
    except ImportError as error:
        if not any(name in str(error) for name in ("libc10_cuda", "libtorch_cuda", "libcudart")):
            raise
        raise ImportError(
            f"gat_ext was built for a torch with CUDA, but torch {torch.__version__} here is for "
            f"{'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPUs only'}; "
            f"build it again with `{_MEND} <the gat_ext source folder>`, or install the torch it was built with. ({error})"
        ) from error
    for name in OPERATORS:
        importlib.import_module(f"gat_ext.ops.{name}")
