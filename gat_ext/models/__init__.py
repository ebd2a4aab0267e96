"""Models: attention layers for nodes and graphs, walking agents for graphs, and node embeddings.

Presets have the papers' settings. A model of layers maps node features [N, in_channels] and a graph
to logits [N, out_channels], and PooledModel pools them to logits of graphs; a model of agents maps
node types [N] of G graphs to logits of the graphs; a model of typed nodes maps dictionaries of node
types and relations to logits of the nodes of one type.

Uses ``nn``, ``functional``, ``graph`` and ``ops``. Models are found by name.
"""

from __future__ import annotations

import difflib
from typing import TypeVar

from gat_ext.models.agnn import AGNN
from gat_ext.models.attention_walk import AttentionWalk
from gat_ext.models.base import AttentionModel
from gat_ext.models.gam import GAM, GAMMemory
from gat_ext.models.gat import GAT
from gat_ext.models.gatv2 import GATv2
from gat_ext.models.han import HAN
from gat_ext.models.hgt import HGT
from gat_ext.models.pooled import PooledModel, Rescaled
from gat_ext.models.transformer import GraphTransformer
from gat_ext.models.typed import TypedModel
from gat_ext.models.walks import WalkModel

__all__ = [
    "AGNN",
    "GAM",
    "GAT",
    "HAN",
    "HGT",
    "AttentionModel",
    "AttentionWalk",
    "GAMMemory",
    "GATv2",
    "GraphTransformer",
    "PooledModel",
    "Rescaled",
    "TypedModel",
    "available",
    "available_embeddings",
    "available_graphs",
    "available_typed",
    "build",
    "build_graphs",
    "build_typed",
]

Model = TypeVar("Model")

_MODELS: dict[str, type[AttentionModel]] = {
    "gat": GAT,
    "gatv2": GATv2,
    "agnn": AGNN,
    "transformer": GraphTransformer,
}
_TYPED_MODELS: dict[str, type[TypedModel]] = {"hgt": HGT, "han": HAN}
_GRAPH_MODELS: dict[str, type[WalkModel]] = {"gam": GAM, "gam-mem": GAMMemory}


def available() -> list[str]:
    """Names of the models that classify nodes.

    Example:
        >>> available()
        ['gat', 'gatv2', 'agnn', 'transformer']
    """
    return list(_MODELS)


def available_graphs() -> list[str]:
    """Names of the models of agents that classify graphs.

    Example:
        >>> available_graphs()
        ['gam', 'gam-mem']
    """
    return list(_GRAPH_MODELS)


def available_typed() -> list[str]:
    """Names of the models that classify nodes of one of several types.

    Example:
        >>> available_typed()
        ['hgt', 'han']
    """
    return list(_TYPED_MODELS)


def available_embeddings() -> list[str]:
    """Names of the models that embed nodes.

    Example:
        >>> available_embeddings()
        ['attention-walk']
    """
    return ["attention-walk"]


def build(name: str) -> type[AttentionModel]:
    """The class of a model that classifies nodes.

    Raises:
        ValueError: unknown name; the message lists the known names, the closest first.

    Example:
        >>> build("gat").__name__
        'GAT'
    """
    return _find(name, _MODELS)


def build_typed(name: str) -> type[TypedModel]:
    """The class of a model that classifies nodes of one of several types.

    Raises:
        ValueError: as :func:`build`.

    Example:
        >>> build_typed("hgt").__name__
        'HGT'
    """
    return _find(name, _TYPED_MODELS)


def build_graphs(name: str) -> type[WalkModel]:
    """The class of a model of agents that classifies graphs.

    Raises:
        ValueError: as :func:`build`.

    Example:
        >>> build_graphs("gam-mem").__name__
        'GAMMemory'
    """
    return _find(name, _GRAPH_MODELS)


def _find(name: str, models: dict[str, Model]) -> Model:
    if name not in models:
        close = difflib.get_close_matches(name, models, n=1)
        choices = [*close, *(m for m in models if m not in close)]
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(choices)}")
    return models[name]
