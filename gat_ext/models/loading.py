"""``Model.load``: a trained model from the folder of a run."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from typing_extensions import Self


class Loadable:
    """A model that a run of ``gat-ext train`` has written can be loaded by its class."""

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        seed: int | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        data: Any = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The trained model of a run, in evaluation mode.

        :func:`gat_ext.training.load` gives its data and metrics, too.

        Args:
            run: folder of the run, such as ``runs/gat-cora``.
            seed: of the weights; None: the best in validation.
            root: of the data set's files, as :func:`gat_ext.training.load`.
            data: the data set, as :func:`gat_ext.training.load`.
            device: of the model.

        Raises:
            FileNotFoundError: there is no such run, or its data set lacks files.
            TypeError: the run is of another model.
            ValueError: the checkpoint is damaged, or has no such seed.

        Example:
            >>> from gat_ext.models import GAT
            >>> GAT.load("runs/gat-cora")  # doctest: +SKIP
        """
        # By name, because training imports models; only a run's folder says how to build a model.
        training = importlib.import_module("gat_ext.training")
        saved = training.load(run, seed, root=root, data=data, device=device)
        if not isinstance(saved.model, cls):
            kind = next(each for each in type(saved.model).__mro__ if _is_public(each)).__name__
            raise TypeError(
                f"{os.fspath(run)} is a run of {saved.config.model}, a {kind}; {cls.__name__}.load "
                f"expects one of {cls.__name__}: call gat_ext.models.{kind}.load, or "
                "gat_ext.training.load for any model"
            )
        model: Self = saved.model
        return model


def _is_public(cls: type) -> bool:
    """Whether a class is in ``gat_ext.models``, and not a variant that a run has made."""
    return getattr(importlib.import_module("gat_ext.models"), cls.__name__, None) is cls
