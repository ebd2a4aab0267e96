"""Tensors in ``.npy`` files, which are mapped into memory when they are read."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Dtypes that NumPy lacks are stored as integers of their size.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def write_array(path: Path, tensor: Tensor) -> dict[str, Any]:
    """Writes a tensor to a new file, and returns what :func:`read_array` is to expect."""
    tensor = tensor.detach().cpu().contiguous()
    with path.open("xb") as file:
        np.save(file, _stored(tensor).numpy(), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def read_array(path: Path, expected: dict[str, Any]) -> Tensor:
    """A tensor of a file, mapped copy-on-write: memory is taken by the pages that are read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has another shape or dtype.
    """
    if not isinstance(expected, dict):
        expected = {}
    shape, dtype = expected.get("shape"), getattr(torch, str(expected.get("dtype")), None)
    if not isinstance(shape, list) or not isinstance(dtype, torch.dtype):
        raise ValueError(
            f"{path} is described as {expected}; expected a shape and a dtype: copy the folder "
            "again, or save the partition again"
        )
    try:
        # Read-only pages would end the process when the tensor is modified in place.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing; expected the files that save wrote: copy the folder again"
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged header raises what Python's parser does
        why = " ".join(str(error).split())
        raise ValueError(
            f"{path} is damaged ({why}); expected an array of shape {shape}: copy the folder "
            "again, or save the partition again"
        ) from error
    stored = _stored(torch.empty(0, dtype=dtype)).numpy().dtype
    if list(array.shape) != shape or array.dtype != stored:
        raise ValueError(
            f"{path} has shape {list(array.shape)} and dtype {array.dtype}; expected {shape} and "
            f"{stored}: it belongs to another partition, so save again"
        )
    found = torch.from_numpy(array)
    return found if found.dtype == dtype else found.view(dtype)


def tensor_of(name: str, value: Any) -> Tensor:
    """A dense tensor of a tensor or a NumPy array, which may be mapped from a file.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, np.ndarray):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            value = torch.from_numpy(value)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected a tensor or a NumPy array: convert it "
            "with torch.as_tensor"
        )
    if value.layout != torch.strided:
        raise TypeError(
            f"{name} has layout {value.layout}; expected a dense tensor: pass {name}.to_dense()"
        )
    return value


def _stored(tensor: Tensor) -> Tensor:
    try:
        tensor[:0].numpy()
    except TypeError:
        return tensor.view(_INTEGERS[tensor.element_size()])
    return tensor
