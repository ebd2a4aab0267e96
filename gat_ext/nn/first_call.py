"""The first call of a layer with sizes of -1."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin


class FirstCall(LazyModuleMixin, nn.Module):  # type: ignore[misc]
    """Gives the lazy maps of a layer their sizes, all at once, before anything reads them.

    torch.compile runs the hook of a lazy module outside the trace. The maps alone would get their
    sizes one by one, in the middle of it, after the layer has read them.
    """

    layer: Any

    def __init__(self, layer: Any) -> None:
        """``layer``: a layer with ``first_inputs``, which calls this."""
        super().__init__()
        object.__setattr__(self, "layer", layer)  # not a submodule: the layer holds this one

    def initialize_parameters(  # type: ignore[override]
        self, x: Any, edge_attr: Tensor | None
    ) -> None:
        """Takes the sizes of the inputs, in the order of ``layer.first_inputs``."""
        for lin, rows in self.layer.first_inputs(x, edge_attr):
            self.take_size(lin, rows)

    def take_size(self, lin: nn.Module, x: Any) -> None:
        """Gives a lazy map the size of x; leaves any other map alone."""
        if isinstance(lin, LazyModuleMixin):
            lin._infer_parameters(lin, (x,))  # type: ignore[no-untyped-call]

    def forward(self, x: Any, edge_attr: Tensor | None) -> None:
        """Does nothing; the work is done by the hook."""
