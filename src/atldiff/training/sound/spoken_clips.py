"""What every landmark generator is trained on and judged by: clips with the features of their sound."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from atldiff.data.prepared import SpeakerSampler
from atldiff.errors import InputError
from atldiff.landmarks.shapes import mouth_shapes
from atldiff.training.engine.report import Validation
from atldiff.training.engine.settings import TrainingSettings
from atldiff.training.engine.task import Batch
from atldiff.training.sound.speech_features import SpokenClip

_JUDGED = ("opening", "width")
_STILL = 1e-5
"""A mouth whose shape changes by less, in eye distances, is still."""


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


def judge_shapes(clips: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> Validation:
    """How the mouth's opening and width follow the true ones: r at lag 0, and gain, the ratio of their deviations.

    The figures are medians over the clips of a corpus. The score is the mean over corpora of the concordance that
    goes with them, 2 r · gain / (1 + gain²): a mouth that follows but moves too little is not a good one. A predicted
    mouth that is still has r = 0; where the true shape is still a clip says nothing of it.

    Args:
        clips: corpus, predicted and true landmarks, (F, 68, 2) each.

    Raises:
        InputError: no true mouth moves.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for corpus, predicted, target in clips:
        made, true = mouth_shapes(predicted), mouth_shapes(target)
        for name in _JUDGED:
            if np.ptp(true[name]) >= _STILL:
                still = np.ptp(made[name]) < _STILL
                r = 0.0 if still else float(np.corrcoef(made[name], true[name])[0, 1])
                found.setdefault((corpus, name), []).append((r, float(made[name].std() / true[name].std())))
    if not found:
        raise InputError("the mouth is still in all validation clips; expected some that speak")
    figures, concordances = {}, []
    for (corpus, name), rows in found.items():
        r, gain = (float(value) for value in np.median(rows, axis=0))
        figures |= {f"{name} r {corpus}": r, f"{name} gain {corpus}": gain}
        concordances.append(2 * r * gain / (1 + gain**2))
    return Validation(float(np.mean(concordances)), figures)
