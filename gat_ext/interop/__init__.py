"""Coming from other libraries: PyTorch Geometric's layers on the operators here, weights of DGL.

:func:`patch_pyg` swaps the attention layers of a PyG model in place, :func:`unpatch_pyg` swaps them
back. :mod:`gat_ext.interop.pyg` has the classes that it swaps in, to import instead of PyG's:
``to_hetero`` and the explainers know them, which do not know the layers of :mod:`gat_ext.nn`.
:func:`from_dgl` renames the parameters of a DGL model. No other library is imported before it is
needed.

Uses ``nn``.
"""

from __future__ import annotations

from gat_ext.interop.dgl import from_dgl
from gat_ext.interop.patch import PatchReport, patch_pyg, unpatch_pyg

__all__ = ["PatchReport", "from_dgl", "patch_pyg", "unpatch_pyg"]
