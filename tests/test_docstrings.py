"""The examples in the docstrings run and print the documented results."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import gat_ext

MODULES = [
    m.name
    for m in pkgutil.walk_packages(gat_ext.__path__, "gat_ext.")
    if not m.name.endswith(("_C", "libgat_ext", "__main__"))  # which runs the command
]


@pytest.mark.parametrize("name", ["gat_ext", *MODULES])
def test_examples(name):
    module = importlib.import_module(name)
    names = {"torch": torch, "Graph": gat_ext.Graph}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize(
    "package", ["gat_ext.functional", "gat_ext.nn", "gat_ext.models", "gat_ext.explain"]
)
def test_everything_public_has_an_example(package):
    module = importlib.import_module(package)
    without = [n for n in module.__all__ if ">>>" not in (getattr(module, n).__doc__ or "")]
    assert without in ([], ["AttentionModel"])
