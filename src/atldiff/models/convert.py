"""Published weights → folders that this package reads.

Nothing in the files is run: they are unpickled weights-only.
"""

import contextlib
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atldiff.errors import ModelError, OutputError
from atldiff.landmarks.kfusion import KFusionConfig, KFusionGenerator
from atldiff.models.registry import LANDMARK_FOLDER, WAV2VEC2_FOLDER, load_landmark_part
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.storage.parts import load_checkpoint, save_part

State = dict[str, torch.Tensor]

_SPEECH_PREFIX = "w2v."
_HEAD_SIZE = 64
_CONV_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_POSITION_CONV = "encoder.transformer.pos_conv_embed.conv."
_TRANSFORMERS_NAMES = (
    (r"^encoder\.feature_projection\.", "feature_projection."),
    (r"^encoder\.transformer\.", "encoder."),
    (r"\.conv\.weight_g$", ".conv.parametrizations.weight.original0"),
    (r"\.conv\.weight_v$", ".conv.parametrizations.weight.original1"),
)


def convert_landmark_checkpoint(path: Path, out_folder: Path) -> None:
    """Convert a Lightning checkpoint of the published Landmark Generation Module.

    Writes ``landmark_generator`` (see :class:`atldiff.landmarks.kfusion.KFusionGenerator`) and ``wav2vec2``
    (transformers' format) into ``out_folder``, both in float32; :func:`load_landmark_parts` reads them. What the
    checkpoint does not say is taken as published: head counts, dropout, the strides and the 64-channel heads of
    wav2vec2-base, sequence-first transformers, the emotion's softmax over the batch.

    Args:
        path: the ``.ckpt`` file.
        out_folder: made where it is missing; must not hold the two folders yet.

    Raises:
        InputError: transformers is not installed.
        ModelError: the file is missing, not a checkpoint, not safe to read, or does not hold that module.
        OutputError: the folders exist already or cannot be written.
    """
    state = _read_checkpoint(path)
    speech_state = {
        name.removeprefix(_SPEECH_PREFIX): tensor for name, tensor in state.items() if name.startswith(_SPEECH_PREFIX)
    }
    landmark_state = {name: tensor for name, tensor in state.items() if not name.startswith(_SPEECH_PREFIX)}
    try:
        generator = KFusionGenerator(_landmark_config(landmark_state))
        encoder = Wav2Vec2Encoder.from_config(**_speech_settings(speech_state))
    except KeyError as error:
        raise ModelError(f"{path} is no checkpoint of the landmark module: it lacks {error}") from error
    except IndexError as error:
        raise ModelError(f"{path} is no checkpoint of the landmark module: a tensor lacks a dimension") from error
    _fill(generator, landmark_state, path)
    _fill(encoder.model, _in_transformers_names(speech_state), path)
    with _new_folder(out_folder / LANDMARK_FOLDER) as landmarks, _new_folder(out_folder / WAV2VEC2_FOLDER) as speech:
        save_part(landmarks, generator, generator.config, torch.float32)
        encoder.save_pretrained(speech)


def load_landmark_parts(folder: Path) -> tuple[Wav2Vec2Encoder, KFusionGenerator]:
    """What :func:`convert_landmark_checkpoint` wrote into ``folder``, in evaluation mode.

    Raises:
        InputError: transformers is not installed.
        ModelError: a part is missing or corrupt.
    """
    encoder, generator = load_landmark_part(folder, WAV2VEC2_FOLDER)
    if not (isinstance(encoder, Wav2Vec2Encoder) and isinstance(generator, KFusionGenerator)):
        raise ModelError(f"{folder} holds a {type(generator).__name__}; expected a converted KFusionGenerator")
    return encoder, generator


def _read_checkpoint(path: Path) -> State:
    if not path.is_file():
        found = f"{path} is a folder" if path.is_dir() else f"no checkpoint at {path}"
        raise ModelError(f"{found}: expected a Lightning .ckpt file")
    content = load_checkpoint(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        found = "has nothing in its `state_dict`" if state == {} else "holds no `state_dict`"
        raise ModelError(f"{path} {found}; expected a Lightning checkpoint")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelError(f"{path}: {name!r} in `state_dict` is a {type(tensor).__name__}; expected a tensor")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: tensor {name} holds values that are not finite")
    return state


def _landmark_config(state: Mapping[str, torch.Tensor]) -> KFusionConfig:
    return KFusionConfig(
        features=state["trans_gb.transformer_encoder.1.weight"].shape[1],
        feed_forward=state["trans_gb.transformer_encoder.0.layers.0.linear1.weight"].shape[0],
        fusion_channels=state["R1.0.weight"].shape[0],
        mouth_channels=state["R3.0.weight"].shape[0],
        kan_hidden=state["KAN.layers.0.base_weight"].shape[0],
    )


def _speech_settings(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Settings of transformers' ``Wav2Vec2Config`` for tensors in torchaudio's names."""
    convolutions = [state[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(len(_CONV_STRIDES))]
    hidden = state["encoder.feature_projection.projection.weight"].shape[0]
    new_name, old_name = "parametrizations.weight.original1", "weight_v"
    naming = new_name if _POSITION_CONV + new_name in state else old_name
    position_weight = state[_POSITION_CONV + naming]
    layers = {int(found[1]) for name in state if (found := re.match(r"encoder\.transformer\.layers\.(\d+)\.", name))}
    if hidden % _HEAD_SIZE:
        raise ModelError(f"the wav2vec2 model is {hidden} wide; expected a multiple of {_HEAD_SIZE}")
    return {
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // _HEAD_SIZE,
        "intermediate_size": state["encoder.transformer.layers.0.feed_forward.intermediate_dense.weight"].shape[0],
        "conv_dim": [weight.shape[0] for weight in convolutions],
        "conv_kernel": [weight.shape[2] for weight in convolutions],
        "conv_stride": list(_CONV_STRIDES),
        "num_conv_pos_embeddings": position_weight.shape[2],
        "num_conv_pos_embedding_groups": hidden // position_weight.shape[1],
        "mask_time_prob": 0.0,
    }


def _in_transformers_names(state: Mapping[str, torch.Tensor]) -> State:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in _TRANSFORMERS_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _fill(module: nn.Module, state: State, path: Path) -> None:
    """Load ``state``, all of it and nothing else."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error).partition(":")[2], 300)
        raise ModelError(f"{path} does not hold the published {type(module).__name__}: {reason}") from error


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` at the end, and vanishes after an error."""
    if target.exists():
        raise OutputError(f"{target} exists already; expected a folder without {target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise OutputError(f"cannot make the folder {target}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
