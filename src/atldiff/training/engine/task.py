"""One part of the model and how it is learned: what the training loop asks of it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from atldiff.storage.parts import load_weights, save_part
from atldiff.training.engine.checkpoint import describe_clips
from atldiff.training.engine.report import Validation
from atldiff.training.engine.settings import TrainingSettings

Batch = dict[str, torch.Tensor]


Model = TypeVar("Model", bound=nn.Module)


class Task(ABC, Generic[Model]):
    """One part of the model and how it is learned.

    Attributes:
        part: folder of the trained part in the run's folder.
        settings, config: of the training and of the model.
        model: the network, made from the seed alone.
        optimiser: AdamW, of those of its parameters that learn.
        keeps_last: the weights of the last report are taken for the best, whatever their score.

    Args:
        prepared: folder of the prepared clips.
        betas: of the optimiser.
    """

    part: ClassVar[str]
    keeps_last: bool = False

    def __init__(
        self,
        prepared: Path,
        settings: TrainingSettings,
        config: Any,
        model: Model,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self._prepared, self.settings, self.config, self.model = prepared, settings, config, model
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser: Optimizer = torch.optim.AdamW(
            learned, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay
        )

    def describe_clips(self) -> dict[str, Any]:
        """The clips of the run, see :func:`~atldiff.training.engine.checkpoint.describe_clips`."""
        return describe_clips(self._prepared)

    @abstractmethod
    def open(self, device: torch.device) -> None:
        """Read what the batches and the validation need. Raises InputError where that is missing or broken."""

    @abstractmethod
    def draws(self, share: int, shares: int) -> Dataset[Batch]:
        """Part ``share`` of ``shares`` equal parts of the batches, by step; worker processes draw them."""

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""

    @abstractmethod
    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        """The loss of a batch, a mean over its clips, to be gone down in ``step``."""

    @abstractmethod
    def validate(self, model: Model) -> Validation:
        """Judge averaged weights."""

    def assemble(self, draw: Batch) -> Batch:
        """What the network needs of a draw, on the draw's device."""
        return draw

    def begin_from(self, folder: Path) -> None:
        """Begin with the weights of a trained part.

        Raises:
            ModelError: they cannot be read, or are those of another network.
        """
        load_weights(folder, self.model)

    def export(self, model: Model, run: Path) -> None:
        """Write what was learned as folders of a model, ``run/part`` among them."""
        save_part(run / self.part, model, self.config)
