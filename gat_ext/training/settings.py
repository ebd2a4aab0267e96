"""Comparison of the settings of two runs, for a person to read."""

from __future__ import annotations

from typing import Any

from gat_ext.training import checkpoint

_NESTED = ("recipe", "options", "own")
_SHOWN = 8  # values of a list
_OPTIONS = {
    "num_layers": "--layers",
    "hidden_channels": "--hidden",
    "embedding_channels": "--dim",
    "stopping": "--keep",
    "edges": "--edge-attributes",
    "digest": "the digest of the data",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            *("dataset", "seed", "seeds", "folds", "subset", "types", "attributes"),
            *("edge_attributes", "reorder"),
            *("epochs", "lr", "weight_decay", "patience", "bf16", "eval_agents"),
            *("heads", "walk", "window", "context", "pooling", "task", "noise", "attention"),
            *("columns", "features", "directed", "split", "split_seed"),
        )
    },
}
"""Options of the command line, by the name of the setting"""


def differences(given: dict[str, Any], own: dict[str, Any], may_grow: frozenset[str]) -> list[str]:
    """Settings that differ, each with both values.

    Args:
        given: settings in a checkpoint, of any content.
        own: settings of the run.
        may_grow: names of integers that may be larger in ``own``.

    Example:
        >>> was = {"seeds": 3, "recipe": {"lr": 0.1}}
        >>> now = {"seeds": 5, "recipe": {"lr": 0.2}}
        >>> differences(was, now, frozenset({"seeds"}))
        ['--lr is 0.1 there and 0.2 here']
    """
    there, here = _flat(given), _flat(own)
    found = []
    for name in [*here, *(name for name in there if name not in here)]:
        one, other = there.get(name), here.get(name)
        if checkpoint.same(one, other):
            continue
        why = ""
        if type(one) is int and type(other) is int and name in ("seeds", "epochs"):
            if name in may_grow and one < other:
                continue
            why = " (it may grow only)" if name in may_grow else ""
            if name == "epochs" and not why:
                why = " (it cannot change: the learning rate of an epoch depends on it)"
        found.append(
            f"{_OPTIONS.get(name, name)} is {_text(name, one)} there and {_text(name, other)} "
            f"here{why}"
        )
    return found


def _flat(settings: dict[str, Any]) -> dict[Any, Any]:
    flat: dict[Any, Any] = {}
    for name, value in settings.items():
        if name in _NESTED and isinstance(value, dict):
            flat |= value
        else:
            flat[name] = value
    return flat


def _text(name: str, value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, (bool, int, float, str)):
        return str(value)
    if isinstance(value, list) and name not in _NESTED:
        shown = ", ".join(map(str, value[:_SHOWN])) or "none"
        return shown + (", …" if len(value) > _SHOWN else "")
    return f"of type {type(value).__name__}"
