"""Training: loops, early stopping, checkpoints, recipes of the papers, plots, the command line.

``load`` gives the model and the data of a run that ``gat-ext train`` has written.

Uses ``models``, ``datasets``, ``distributed``, ``sampling``, ``export``, ``functional`` and
``graph``. Nothing imports it: it ends at the command line.
"""

from __future__ import annotations

from gat_ext.training.epochs import SeedResult
from gat_ext.training.loop import Trainer
from gat_ext.training.recipes import Recipe, recipe
from gat_ext.training.saved import SavedRun, load
from gat_ext.training.stopping import BestValidation, EarlyStopping, PaperStopping

__all__ = [
    "BestValidation",
    "EarlyStopping",
    "PaperStopping",
    "Recipe",
    "SavedRun",
    "SeedResult",
    "Trainer",
    "load",
    "recipe",
]
