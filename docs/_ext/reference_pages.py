"""The reference: a page for each public module, with every name of its ``__all__``."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gat_ext

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Public modules that are not names of gat_ext.
MORE = ["graph", "interop.pyg"]
# Modules whose docstring alone is public, at the end of a page.
EXPLAINED = {"gat_ext.graph": ["gat_ext.graph.formats"]}
# Classes of the results of public functions, which users do not construct.
RESULTS = {
    "gat_ext.functional": ["options.WithLse", "options.WithWeights", "options.WithWeightsAndLse"],
    "gat_ext.models": ["attention_walk.AttentionWalkLoss", "walks.WalkOutput"],
    "gat_ext.nn": ["walk_agent.Walks"],
}
# Inherited methods that users call.
INHERITED = ("forward", "set_epoch")


def public_modules() -> list[str]:
    """gat_ext, the modules among its names, and ``MORE``."""
    rooms = [name for name in gat_ext.__all__ if inspect.ismodule(getattr(gat_ext, name))]
    return ["gat_ext", *(f"gat_ext.{name}" for name in sorted([*rooms, *MORE]))]


def public_names(module: ModuleType) -> list[str]:
    """``__all__`` without modules; a module without an ``__all__`` has its docstring alone."""
    names = getattr(module, "__all__", [])
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def pages() -> dict[str, str]:
    """The reStructuredText of each page, by file name."""
    homes: dict[int, str] = {}  # where a class or function is documented, by identity
    return {f"{name}.rst": page(name, homes) for name in public_modules()}


def page(module_name: str, homes: dict[int, str]) -> str:
    """The page of a module; names that an earlier page documents are links to it."""
    module = importlib.import_module(module_name)
    parts = [
        f"{module_name}\n{'=' * len(module_name)}",
        f".. automodule:: {module_name}\n   :no-members:",
    ]
    for name in public_names(module):
        value = getattr(module, name)
        home = homes.setdefault(id(value), module_name) if callable(value) else module_name
        if home == module_name:
            parts.append(entry(module_name, name, value))
        else:
            parts.append(f"``{module_name}.{name}`` is :py:obj:`{home}.{name}`.")
    for path in RESULTS.get(module_name, []):
        owner, name = f"{module_name}.{path}".rsplit(".", 1)
        parts.append(entry(owner, name, getattr(importlib.import_module(owner), name)))
    for path in EXPLAINED.get(module_name, []):
        parts.append(f".. automodule:: {path}\n   :no-members:")
    return "\n\n".join(parts) + "\n"


def entry(module_name: str, name: str, value: Any) -> str:
    """The directive that documents a name."""
    full = f"{module_name}.{name}"
    if inspect.isclass(value):
        if module_name == "gat_ext.interop.pyg":  # whose other members are PyG's
            return f".. autoclass:: {full}"
        # The docstring of a named tuple has its fields; the operator of a layer has its own entry.
        hidden = ", ".join(["operator", *getattr(value, "_fields", ())])
        inherited = [
            f"\n\n   .. automethod:: {method}"
            for method in INHERITED
            if method not in vars(value)
            and getattr(getattr(value, method, None), "__module__", "").startswith("gat_ext")
        ]
        options = f"   :members:\n   :exclude-members: {hidden}"
        return f".. autoclass:: {full}\n{options}{''.join(inherited)}"
    if inspect.isroutine(value):
        return f".. autofunction:: {full}"
    if isinstance(value, str) or callable(value):  # such as an alias of a type
        return f".. autodata:: {full}\n   :no-value:"
    choices = ", ".join(f"``{choice!r}``" for choice in value)
    return f".. py:data:: {name}\n   :module: {module_name}\n\n   The names {choices}."


def forget_overloads(app: Sphinx, kind: str, name: str, value: Any, *_: Any) -> None:
    """Has autodoc show the signature of an overloaded function, in place of those for its types."""
    from sphinx.pycode import ModuleAnalyzer

    if kind == "function" and inspect.isfunction(value):
        analyzer = ModuleAnalyzer.for_module(value.__module__)
        analyzer.analyze()
        analyzer.overloads.clear()


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the pages before Sphinx looks for files."""
    from written import write

    app.connect("builder-inited", lambda _: write("reference", pages()))
    app.connect("autodoc-process-signature", forget_overloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
