"""Checkpoints: plain dictionaries of tensors and numbers, written whole or not at all, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gat_ext.training.files import replacing

FORMAT = 1


def save(state: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint; a crash in between leaves the old one.

    Args:
        state: tensors, numbers, strings, and lists and dictionaries of them.
        path: where to; the folder is made.
    """
    with replacing(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint with ``weights_only=True``: a file that asks for code to run is refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint of this format.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no checkpoint {path} to go on from; start without --resume"
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is not a checkpoint of gat-ext: it is damaged, or holds more than tensors, "
            "numbers and text"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} has checkpoint format {found!r}; expected {FORMAT}")
    return state


def random_state() -> dict[str, Any]:
    """The state of torch's random number generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts torch's random number generators where a state was taken."""
    torch.set_rng_state(state["cpu"].cpu())
    for index, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda.cpu(), index)
