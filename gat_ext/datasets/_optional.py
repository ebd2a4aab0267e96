"""Optional dependencies of some data sets."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str) -> Any:
    """Import ``module``; the error says how to install it.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        raise ImportError(
            f"this data set needs {package}, which is not installed: pip install 'gat_ext[train]'"
        ) from error
