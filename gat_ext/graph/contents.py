"""Detects modifications of tensors, to decide if cached results are still valid."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from gat_ext import _C
from gat_ext.graph.formats.edge_index import plain_tensor
from gat_ext.graph.formats.torch_sparse import index_tensors
from gat_ext.ops.state import is_capturing

State = tuple[Hashable, ...]


def state_of(tensor: Tensor, *, large: bool = False) -> State:
    """A value that is equal for two calls unless the tensor was modified between them.

    In-place operations of torch raise the version of a tensor. Other writes do not: collectives and
    receives of ``torch.distributed``, including DDP's broadcasts of buffers; other processes with
    shared memory; NumPy, DLPack, ``.data``, and tensors put on the same storage by ``set_``;
    operators of ``torch.library`` without an autograd kernel. So on the CPU the state includes a
    64-bit hash of the contents. Reading contents on a GPU would synchronise; there the state
    includes them only while ``torch.distributed`` is initialised and no CUDA graph is being
    captured.

    The state of a sparse tensor is that of its index tensors, without its values. The state of
    PyG's EdgeIndex is that of the inner tensor, with the version of the wrapper, because in-place
    operations on the wrapper raise only the latter.

    Args:
        tensor: of any dtype, outside inference mode and tracing.
        large: reading the tensor, such as features [N, C], takes longer than the cached result
            saves; so hash its contents only if it is in shared memory, or while
            ``torch.distributed`` is initialised.
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
    return distributed and not is_capturing(tensor)
