"""Landmark Generation Module, paper preset: the KFusion dual-domain generator (arXiv 2409.05330).

One second of wav2vec2 features becomes 30 landmark sets. The layers, their names and their order are those of the
published module, so that its checkpoints fit. What the published module does and this one keeps for them:

- its transformers take (time, batch, channel) but are given (batch, time, channel): a token attends to the same
  token of the other items of the batch, and at batch 1 to itself alone;
- the emotion factor is the softmax of the class numbers over the batch: 1 at batch 1;
- there is no position code; the flattened identity landmarks, all x before all y, are the decoder's query.

Ours, for training: ``sequence_first=False`` lets tokens attend along time, and ``emotions`` gives every emotion
a learned factor for each feature, which does not depend on the rest of the batch.
"""

import math
from dataclasses import astuple, dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import InputError, ModelError
from atldiff.face.topology import MOUTH, NUM_LANDMARKS
from atldiff.landmarks.kan import KAN
from atldiff.options import EMOTIONS

TOKENS = 49
"""wav2vec2 feature vectors in a window of one second."""

FRAMES = 30
"""Landmark sets that a window gives: the frames of one second."""

Points = TypeVar("Points", np.ndarray, torch.Tensor)

_MOUTH_ORDER = [*range(49, 68), 48]
_MOUTH_POINTS = len(_MOUTH_ORDER)


@dataclass(frozen=True)
class KFusionConfig:
    """Configuration of :class:`KFusionGenerator`; the defaults are the published module's.

    Attributes:
        features: size of a speech feature vector.
        feed_forward: inner width of the transformer layers.
        fusion_channels: width of the convolutions over all points.
        mouth_channels: width of the convolutions over the mouth.
        kan_hidden: hidden width of the KAN.
        dropout: of the transformer layers.
        sequence_first: tokens attend across the batch instead of along time, as published.
        emotions: 8 for a learned factor of each of :data:`~atldiff.options.EMOTIONS`; 0 for the published softmax
            over the batch.
        origin, extent: the unit of the landmarks, (crop pixels / crop size − origin) / extent. The defaults are
            ours: shares of the crop's side. Published checkpoints do not name theirs.
        class_name: of the model that this configures.
    """

    features: int = 768
    feed_forward: int = 2048
    fusion_channels: int = 256
    mouth_channels: int = 128
    kan_hidden: int = 512
    dropout: float = 0.2
    sequence_first: bool = True
    emotions: int = 0
    origin: float = 0.0
    extent: float = 1.0
    class_name: str = "KFusionGenerator"

    def __post_init__(self) -> None:
        sizes = astuple(self)[:5]
        if not all(isinstance(size, int) and 1 <= size <= 16384 for size in sizes) or self.features % 2:
            raise ModelError(f"sizes of the KFusion generator are {sizes}; expected 1 to 16384, the first even")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout is {self.dropout}; expected at least 0 and under 1")
        if self.emotions not in (0, len(EMOTIONS)):
            raise ModelError(f"emotions is {self.emotions}; expected 0 or {len(EMOTIONS)}")
        if not (math.isfinite(self.origin) and math.isfinite(self.extent) and self.extent > 0):
            raise ModelError(f"origin and extent are {self.origin} and {self.extent}; expected an extent over 0")
        if self.class_name != "KFusionGenerator":
            raise ModelError(f"class_name is {self.class_name!r}; expected 'KFusionGenerator'")

    def from_pixels(self, points: Points, crop_size: int) -> Points:
        """Crop pixels → the unit of the landmarks."""
        return (points / crop_size - self.origin) / self.extent

    def to_pixels(self, points: Points, crop_size: int) -> Points:
        """The unit of the landmarks → crop pixels."""
        return (points * self.extent + self.origin) * crop_size


class DomainTransformer(nn.Module):
    """Speech features encoded, then asked by the identity landmarks: one encoder and one decoder layer, post-norm."""

    def __init__(self, config: KFusionConfig, points: int, heads: int) -> None:
        super().__init__()
        size = 2 * points
        shared = {
            "nhead": heads,
            "dim_feedforward": config.feed_forward,
            "dropout": config.dropout,
            "batch_first": not config.sequence_first,
        }
        encoder = nn.TransformerEncoderLayer(config.features, **shared)
        self.transformer_encoder = nn.Sequential(
            nn.TransformerEncoder(encoder, num_layers=1, enable_nested_tensor=False),
            nn.Linear(config.features, size),
        )
        self.transformer_decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(size, **shared), num_layers=1)
        self.conv = nn.Conv1d(1, TOKENS, 1)

    def forward(self, features_BTC: torch.Tensor, landmarks_BP: torch.Tensor) -> torch.Tensor:
        """(B, 49, C) and flattened landmarks (B, 2·points) → (B, 49, 2·points)."""
        queries = self.conv(landmarks_BP[:, None])
        return self.transformer_decoder(queries, self.transformer_encoder(features_BTC))


class KFusionGenerator(nn.Module):
    """Global and context domain, gated fusion by convolutions, mouth branch, KAN."""

    def __init__(self, config: KFusionConfig | None = None) -> None:
        super().__init__()
        self.config = config or KFusionConfig()
        features = self.config.features
        self.trans_ct = DomainTransformer(self.config, NUM_LANDMARKS, heads=1)
        self.trans_gb = DomainTransformer(self.config, NUM_LANDMARKS, heads=2)
        self.trans_gbm = DomainTransformer(self.config, _MOUTH_POINTS, heads=2)
        self.lstm = nn.LSTM(features, NUM_LANDMARKS, batch_first=True, bidirectional=True)
        self.mouth = nn.LSTM(features, _MOUTH_POINTS, batch_first=True, bidirectional=True)
        self.R1 = _fusion_stack(3 * TOKENS, self.config.fusion_channels)
        self.R2 = nn.Sequential(nn.Conv2d(3 * TOKENS, FRAMES, 1))
        self.R3 = _fusion_stack(2 * TOKENS, self.config.mouth_channels)
        self.KAN = KAN([NUM_LANDMARKS, self.config.kan_hidden, NUM_LANDMARKS])
        if self.config.emotions:
            self.emotion = nn.Embedding(self.config.emotions, features)
            nn.init.zeros_(self.emotion.weight)

    def forward(
        self, features_BTC: torch.Tensor, identity_BK2: torch.Tensor, emotion_B: torch.Tensor
    ) -> torch.Tensor:
        """Landmarks of one second.

        Args:
            features_BTC: (B, 49, features) of one second of speech.
            identity_BK2: (B, 68, 2) identity landmarks in the configuration's unit. Published trainings differ
                here: MEAD's used (pixels − 56) / 187 on pictures of 256².
            emotion_B: (B,) number of each item's emotion.

        Returns:
            (B, 30, 68, 2) in the unit of the identity landmarks.

        Raises:
            InputError: a tensor has another shape.
        """
        self._check(features_BTC, identity_BK2, emotion_B)
        identity_B2K = identity_BK2.transpose(1, 2)
        global_all = self.trans_gb(features_BTC, identity_B2K.flatten(1))
        global_mouth = self.trans_gbm(features_BTC, identity_B2K[..., _MOUTH_ORDER].flatten(1))

        weighted = features_BTC * self._emotion_factor(emotion_B)
        recurrent_all, recurrent_mouth = self.lstm(weighted)[0], self.mouth(weighted)[0]
        context = self.trans_ct(weighted, identity_B2K.flatten(1))

        whole = torch.cat([recurrent_all, global_all, context], dim=1).unflatten(2, (2, NUM_LANDMARKS))
        lips = torch.cat([recurrent_mouth, global_mouth], dim=1).unflatten(2, (2, _MOUTH_POINTS))
        fused = self.R1(whole) * self.R2(whole)
        fused[..., _MOUTH_ORDER] = self.R3(lips)
        return self.KAN(fused).transpose(2, 3)

    def _emotion_factor(self, emotion_B: torch.Tensor) -> torch.Tensor:
        """Factor of the features: (B, 1, 1) as published, (B, 1, C) with mean 1 where emotions are learned."""
        if self.config.emotions:
            return self.config.features * self.emotion(emotion_B).softmax(dim=-1)[:, None]
        return emotion_B.float().softmax(dim=0)[:, None, None]

    def _check(self, features: torch.Tensor, identity: torch.Tensor, emotion: torch.Tensor) -> None:
        batch = len(features)
        expected = {
            "features": (features, (batch, TOKENS, self.config.features)),
            "identity landmarks": (identity, (batch, NUM_LANDMARKS, 2)),
            "emotions": (emotion, (batch,)),
        }
        for name, (tensor, shape) in expected.items():
            if tensor.shape != shape:
                raise InputError(f"{name} have the shape {tuple(tensor.shape)}; expected {shape}")


def _fusion_stack(channels: int, width: int) -> nn.Sequential:
    """Tokens are the channels of pictures of 2 × points; the last convolution makes frames of them."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, FRAMES, 3, padding=1),
    )


def landmark_loss_as_published(
    predicted_BFK2: torch.Tensor, target_BFK2: torch.Tensor, kan: KAN | None = None, kan_weight: float = 1e-4
) -> torch.Tensor:
    """0.2 · MSE over all points + 0.8 · MSE over the mouth, in the unit of the landmarks.

    Args:
        predicted_BFK2, target_BFK2: (B, F, 68, 2) landmarks.
        kan: adds the KAN's regularisation term, which the published training leaves out.
        kan_weight: factor of that term.
    """
    whole = F.mse_loss(predicted_BFK2, target_BFK2)
    mouth = F.mse_loss(predicted_BFK2[..., MOUTH, :], target_BFK2[..., MOUTH, :])
    loss = 0.2 * whole + 0.8 * mouth
    return loss if kan is None else loss + kan_weight * kan.regularisation_loss()
