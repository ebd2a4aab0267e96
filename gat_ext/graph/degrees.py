"""The largest degrees of a graph, with which the CUDA operators plan their launches."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.graph.graph import Graph
from gat_ext.ops.state import is_capturing

__all__ = ["largest_degrees"]


def largest_degrees(graph: Graph) -> Tensor | None:
    """int64 [2] on the CPU: the largest in-degree, and the largest out-degree or -1.

    The latter is unknown as long as the graph has no transpose. Cached with the graph; the first
    call waits for the device, so a call while a CUDA graph is captured may get None.
    """
    by_source = None if graph._transpose is None else graph.transpose().rowptr
    both, known = getattr(graph, "_largest", None) or (False, None)  # an old pickle lacks it
    if (known is None or both < (by_source is not None)) and not is_capturing(graph):
        known = _largest(graph.rowptr, by_source)
        graph._largest = by_source is not None, known
    return known


def _largest(*all_pointers: Tensor | None) -> Tensor:
    with torch.inference_mode(False):
        known = [pointers for pointers in all_pointers if pointers is not None]
        largest = [p.diff().max() if p.shape[0] > 1 else p.new_zeros(()) for p in known]
        degrees = torch.full((2,), -1)
        degrees[: len(largest)] = torch.stack(largest).cpu()
    return degrees
