"""The first call of a layer with sizes of -1."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from gat_ext.nn.batch import edges_first
from gat_ext.nn.inputs import edge_matrix


class FirstCall(LazyModuleMixin, nn.Module):  # type: ignore[misc]
    """Gives the lazy maps of a layer their sizes, all at once, before anything reads them.

    torch.compile runs the hook of a lazy module outside the trace. The maps alone would get their
    sizes one by one, in the middle of it, after the layer has read them.
    """

    layer: Any

    def __init__(self, layer: Any) -> None:
        """``layer``: an :class:`~gat_ext.nn.base.AttentionConv`, which calls this."""
        super().__init__()
        object.__setattr__(self, "layer", layer)  # not a submodule: the layer holds this one

    def initialize_parameters(  # type: ignore[override]
        self, x: Any, edge_attr: Tensor | None
    ) -> None:
        """Takes the sizes of the inputs, in the order of ``layer.reads``."""
        x_src, x_dst, batch = self.layer.split(x)
        edge_attr = edges_first(edge_attr, batch)
        if edge_attr is not None and self.layer.edge_dim == -1:
            edge_attr = edge_matrix(edge_attr, edge_attr.shape[0] if edge_attr.dim() else 1, -1)
        inputs = {"src": x_src, "dst": x_dst, "edge": edge_attr}
        for name, end in self.layer.reads.items():
            lin = getattr(self.layer, name, None)
            if lin is not None and inputs[end] is not None:
                self.take_size(lin, inputs[end])

    def take_size(self, lin: nn.Module, x: Any) -> None:
        """Gives a lazy map the size of x; leaves any other map alone."""
        if isinstance(lin, LazyModuleMixin):
            lin._infer_parameters(lin, (x,))  # type: ignore[no-untyped-call]

    def forward(self, x: Any, edge_attr: Tensor | None) -> None:
        """Does nothing; the work is done by the hook."""
