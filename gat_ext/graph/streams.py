"""Results that were computed on one stream of a GPU and are kept for the use of others.

Work on two streams is not ordered, and memory that is freed is reused on the stream on which it was
allocated. Whoever hands a tensor to another stream has to order both (``torch.cuda.Stream``). The
caller cannot do this for what a cache holds, so the cache does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops.state import is_capturing, is_tracing


class Cuda:
    """What is used of the streams of torch."""

    @staticmethod
    def current(device: torch.device) -> Any:
        """The current stream of a device."""
        return torch.cuda.current_stream(device)

    @staticmethod
    def record_use(tensor: Tensor, stream: Any) -> None:
        """Delays the reuse of the tensor's memory until what the stream does now is done."""
        tensor.record_stream(stream)


STREAMS: dict[str, Any] = {"cuda": Cuda}
"""By type of device; the others have no streams."""


class Ready:
    """When the tensors that the current stream has begun to compute can be read.

    Args:
        device: of the tensors.
    """

    __slots__ = ("_event", "_ordered", "device")

    def __init__(self, device: torch.device) -> None:
        """Records an event of the current stream."""
        stream = STREAMS[device.type].current(device)
        self.device, self._event = device, stream.record_event()
        self._ordered = {stream}

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """None for a copy, whose tensors the caller copied."""
        return type(None), ()

    def use(self, made: Any) -> None:
        """Lets the current stream use the tensors; once for each stream.

        A stream that captures a CUDA graph cannot wait for what was not captured. There is no need:
        a capture begins with a synchronization.

        Args:
            made: what holds the tensors, see :func:`tensors_of`.
        """
        if is_tracing():  # a compiled program does not run this
            return
        streams = STREAMS[self.device.type]
        stream = streams.current(self.device)
        if stream in self._ordered or is_capturing(self):
            return
        stream.wait_event(self._event)
        for tensor in tensors_of(made):
            streams.record_use(tensor, stream)
        self._ordered.add(stream)


def ready(made: Any) -> Ready | None:
    """The Ready of a result that was just computed; None if it needs none."""
    device = next((t.device for t in tensors_of(made) if t.device.type in STREAMS), None)
    return None if device is None else Ready(device)


def tensors_of(made: Any) -> list[Tensor]:
    """The tensors of a result: a tensor, a Graph or DistGraph, or a tuple of these.

    Example:
        >>> from gat_ext import Graph
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> [tensor.tolist() for tensor in tensors_of((graph, None, torch.ones(1)))]
        [[0, 1, 2], [1, 0], [1, 0], [1.0]]
    """
    if isinstance(made, Tensor):
        return [made]
    if isinstance(made, tuple):
        return [tensor for part in made for tensor in tensors_of(part)]
    return tensors_of(made._held_tensors()) if hasattr(made, "_held_tensors") else []
