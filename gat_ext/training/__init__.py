"""Training for node classification: loop, early stopping, checkpoints, recipes of the papers, plots and the command line.

Uses ``models``, ``datasets``, ``functional`` and ``graph``. Nothing imports it: it ends at the
command line.
"""

from __future__ import annotations

from gat_ext.training.epochs import SeedResult
from gat_ext.training.loop import Trainer
from gat_ext.training.recipes import Recipe, recipe
from gat_ext.training.stopping import BestValidation, EarlyStopping, PaperStopping

__all__ = [
    "BestValidation",
    "EarlyStopping",
    "PaperStopping",
    "Recipe",
    "SeedResult",
    "Trainer",
    "recipe",
]
