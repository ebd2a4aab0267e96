"""Whether a tensor is still what a cached result was computed from, also after writes that torch does not count."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from gat_ext import _C

State = tuple[Hashable, ...]


def state_of(tensor: Tensor, *, large: bool = False) -> State:
    """Equal for two calls between which nobody wrote to the tensor, and different if somebody did.

    Writes through torch raise the version of a tensor. Others do not: collectives and receives of ``torch.distributed``, also
    those by which DDP broadcasts buffers; another process that shares the memory; NumPy, DLPack, ``.data``, and tensors put on
    the same storage by ``set_``; operators of ``torch.library`` for which no autograd kernel was registered. So on the CPU the
    contents are part of the state, as a number of 64 bits. To read contents on a GPU would wait for it: there they are part of
    the state only while ``torch.distributed`` is initialised, and no CUDA graph is being captured.

    Args:
        tensor: dense, of any dtype, outside of inference mode and of traces.
        large: it takes longer to read than what is cached saves, as with features [N, C]; so read it only where somebody else
            may write to it: in shared memory, or while ``torch.distributed`` is initialised.
    """
    counted = tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride()
    return (*counted, _C.fingerprint(tensor)) if _is_read(tensor, large) else counted


def _is_read(tensor: Tensor, large: bool) -> bool:
    if tensor.is_cpu and not large:
        return True
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if tensor.is_cpu:
        return distributed or tensor.is_shared()
    return distributed and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
