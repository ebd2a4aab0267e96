"""Checks of arguments that every layer of the package shares."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any


def choice(given: Any, choices: Sequence[str], name: str) -> None:
    """Raises ValueError unless ``given`` is one of the choices; the error suggests the closest."""
    if isinstance(given, str) and given in choices:
        return
    close = difflib.get_close_matches(str(given), choices, n=1)
    hint = f": did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{name} is {given!r}; expected one of {', '.join(map(repr, choices))}{hint}")


def flag(given: Any, name: str) -> None:
    """Raises TypeError unless ``given`` is True or False."""
    if not isinstance(given, bool):
        raise TypeError(f"{name} is a {type(given).__name__}; expected True or False")
