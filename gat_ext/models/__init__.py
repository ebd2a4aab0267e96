"""Networks of attention layers for node classification, with the papers' settings as presets.

Every model maps node features [N, in_channels] and a graph to scores [N, out_channels].
"""

from __future__ import annotations

import difflib

from gat_ext.models._base import AttentionModel
from gat_ext.models.agnn import AGNN
from gat_ext.models.gat import GAT
from gat_ext.models.gatv2 import GATv2
from gat_ext.models.transformer import GraphTransformer

__all__ = ["AGNN", "GAT", "AttentionModel", "GATv2", "GraphTransformer", "available", "build"]

_MODELS: dict[str, type[AttentionModel]] = {
    "gat": GAT,
    "gatv2": GATv2,
    "agnn": AGNN,
    "transformer": GraphTransformer,
}


def available() -> list[str]:
    """Names of the models.

    Example:
        >>> available()
        ['gat', 'gatv2', 'agnn', 'transformer']
    """
    return list(_MODELS)


def build(name: str) -> type[AttentionModel]:
    """The class of a model.

    Raises:
        ValueError: there is none of that name; the message lists those there are, the closest
            first.

    Example:
        >>> build("gat").__name__
        'GAT'
    """
    if name not in _MODELS:
        close = difflib.get_close_matches(name, _MODELS, n=1)
        choices = [*close, *(m for m in _MODELS if m not in close)]
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(choices)}")
    return _MODELS[name]
