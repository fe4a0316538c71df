"""What every landmark generator is trained on and judged by: clips with the features of their sound."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from atldiff.data.prepared import SpeakerSampler
from atldiff.errors import InputError
from atldiff.face.topology import mouth_opening
from atldiff.training.loop import Batch
from atldiff.training.report import Validation
from atldiff.training.settings import TrainingSettings
from atldiff.training.speech_features import SpokenClip

_STILL = 1e-6
"""A mouth whose opening changes by less, in eye distances, is still."""


class SpokenDraws(Dataset[Batch]):
    """The clips of step ``step``, each a function of the seed, the step and its place in the batch alone.

    Args:
        spoken: those that may be drawn; speakers come up equally often.
        training: the run's settings.
        shortest: frames that a clip must have.
        share, shares: number of this equal part of the batch, and of all.

    Raises:
        InputError: no clip is long enough, or the batch cannot be shared out evenly.
    """

    def __init__(
        self, spoken: Sequence[SpokenClip], training: TrainingSettings, shortest: int, share: int, shares: int
    ) -> None:
        self._settings = training
        self._spoken = {item.clip.info.key: item for item in spoken}
        self._sampler = SpeakerSampler([item.clip for item in spoken], shortest)
        count = training.clips_per_share(shares)
        self._own = range(share * count, (share + 1) * count)

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw number ``step``: what :meth:`row` gives, stacked."""
        rows = []
        for place in self._own:
            random = np.random.default_rng((self._settings.seed, step, place))
            rows.append(self.row(self._spoken[self._sampler.draw(random).info.key], random))
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    @abstractmethod
    def row(self, spoken: SpokenClip, random: np.random.Generator) -> dict[str, np.ndarray]:
        """One clip's part of a batch."""


def judge_openings(clips: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> Validation:
    """Median r at lag 0 of the mouth opening per corpus, and the median ratio of its standard deviations (gain).

    A predicted mouth that is still has r = 0; clips whose true mouth is still say nothing and are left out.

    Args:
        clips: corpus, predicted and true landmarks, (F, 68, 2) each.

    Raises:
        InputError: no true mouth moves.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for corpus, predicted, target in clips:
        made, true = mouth_opening(predicted), mouth_opening(target)
        if np.ptp(true) < _STILL:
            continue
        r = 0.0 if np.ptp(made) < _STILL else float(np.corrcoef(made, true)[0, 1])
        found.setdefault(corpus, []).append((r, float(made.std() / true.std())))
    if not found:
        raise InputError("the mouth is still in all validation clips; expected some that speak")
    scores = {f"r {corpus}": float(np.median([r for r, _ in rows])) for corpus, rows in found.items()}
    gains = {f"gain {corpus}": float(np.median([gain for _, gain in rows])) for corpus, rows in found.items()}
    return Validation(float(np.mean(list(scores.values()))), scores | gains)
