"""Whether a tensor is still what a cached result was computed from: the one rule of validity."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from gat_ext import _C
from gat_ext.graph.formats.edge_index import plain_tensor
from gat_ext.graph.formats.torch_sparse import index_tensors

State = tuple[Hashable, ...]


def state_of(tensor: Tensor, *, large: bool = False) -> State:
    """Equal for two calls between which the tensor was not modified, and different if it was.

    Modifications through torch raise the version of a tensor. Others do not: collectives and
    receives of ``torch.distributed``, also those by which DDP broadcasts buffers; another process
    that shares the memory; NumPy, DLPack, ``.data``, and tensors put on the same storage by
    ``set_``; operators of ``torch.library`` for which no autograd kernel was registered. So on the
    CPU the contents are part of the state, as a number of 64 bits. To read contents on a GPU would
    synchronise: there they are part of the state only while ``torch.distributed`` is initialised,
    and no CUDA graph is being captured.

    Of a sparse tensor the state is that of its index tensors: its values are no part of it. Of
    PyG's EdgeIndex it is that of the tensor inside, with the version of the wrapper, which alone
    counts what is modified through the wrapper.

    Args:
        tensor: of any dtype, outside of inference mode and of traces.
        large: it takes longer to read than what is cached saves, as with features [N, C]; so read
            it only where others may modify it: in shared memory, or while ``torch.distributed`` is
            initialised.
    """
    if tensor.layout != torch.strided:
        return (tensor._version, tensor.shape, *map(state_of, index_tensors(tensor)))
    if type(tensor) is not Tensor and (inner := plain_tensor(tensor)) is not tensor:
        return (tensor._version, *state_of(inner, large=large))
    counted = tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride()
    return (*counted, _C.fingerprint(tensor)) if _is_read(tensor, large) else counted


def _is_read(tensor: Tensor, large: bool) -> bool:
    if tensor.is_cpu and not large:
        return True
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if tensor.is_cpu:
        return distributed or tensor.is_shared()
    return distributed and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
