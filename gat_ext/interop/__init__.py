"""Coming from other libraries: models of PyTorch Geometric on the kernels here, weights of DGL.

:func:`patch_pyg` exchanges the attention layers of a PyG model in place; :func:`from_dgl` renames
the parameters of a DGL model. Neither library is imported before it is needed.

PyG's own tools, ``to_hetero`` and the explainers, look for PyG's layers: build with those and
patch, before or after; layers of :mod:`gat_ext.nn` are to them modules like any other.

Uses ``nn``.
"""

from __future__ import annotations

from gat_ext.interop.dgl import from_dgl
from gat_ext.interop.patch import PatchReport, patch_pyg

__all__ = ["PatchReport", "from_dgl", "patch_pyg"]
