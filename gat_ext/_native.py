"""Finds out, before the native module is loaded, whether it can be: one clear sentence instead of an undefined symbol."""

from __future__ import annotations

from importlib import metadata

import torch

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
