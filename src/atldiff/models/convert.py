"""Published weights → folders that this package reads.

Nothing in the files is run: checkpoints are unpickled weights-only, image folders must hold safetensors and name
classes of diffusers itself.
"""

import contextlib
import inspect
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atldiff.errors import InputError, ModelError, OutputError
from atldiff.landmarks.kfusion import KFusionConfig, KFusionGenerator
from atldiff.models.registry import LANDMARK_FOLDER, WAV2VEC2_FOLDER, load_landmark_part
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.storage.files import read_json, write_json
from atldiff.storage.parts import CONFIG_NAME, load_checkpoint, load_config, save_part

IMAGE_FOLDER = "image"

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


@dataclass(frozen=True)
class ImagePartConfig:
    """What is known of a converted image part.

    Attributes:
        unet_class: diffusers' name of the U-Net's class.
        takes_clips: the U-Net takes (B, C, F, H, W); otherwise (B, C, H, W).
        verified: whether its output was ever compared with the published model's. The exact class was never
            published, so this is False.
    """

    unet_class: str
    takes_clips: bool
    verified: bool = False


@dataclass(frozen=True)
class ImagePart:
    """A converted image part: the U-Net and the scheduler are objects of diffusers."""

    unet: Any
    scheduler: Any
    config: ImagePartConfig


def convert_image_folder(path: Path, out_folder: Path) -> ImagePartConfig:
    """Convert a diffusers folder of the published image part, whatever U-Net of diffusers it names.

    Writes ``image`` into ``out_folder``: ``config.json``, ``unet`` and ``scheduler``; :func:`load_image_part` reads
    it. The U-Net is tried on a small input, so that one that cannot be run is told now.

    Args:
        path: folder with ``model_index.json``, ``unet`` (safetensors) and ``scheduler``.
        out_folder: made where it is missing; must not hold the folder yet.

    Raises:
        InputError: diffusers is not installed.
        ModelError: the folder is incomplete, names other classes, or its U-Net cannot be run.
        OutputError: the folder exists already or cannot be written.
    """
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; expected a folder of diffusers with a model_index.json")
    index = read_json(path / "model_index.json")
    unet_class = _named_class(path, index, "unet")
    scheduler_class = _named_class(path, index, "scheduler")
    if scheduler_class != "DDIMScheduler":
        raise ModelError(f"{path} names the scheduler {scheduler_class}; expected DDIMScheduler")
    unet, scheduler = _load_unet(unet_class, path / "unet"), _load_scheduler(path / "scheduler")
    config = ImagePartConfig(unet_class, takes_clips=_takes_clips(unet))
    with _new_folder(out_folder / IMAGE_FOLDER) as image:
        unet.save_pretrained(image / "unet", safe_serialization=True)
        scheduler.save_pretrained(image / "scheduler")
        write_json(image / CONFIG_NAME, config.__dict__)
    return config


def load_image_part(folder: Path) -> ImagePart:
    """What :func:`convert_image_folder` wrote into ``folder``.

    Raises:
        InputError: diffusers is not installed.
        ModelError: the part is missing or corrupt.
    """
    image = folder / IMAGE_FOLDER
    config = load_config(image, ImagePartConfig)
    return ImagePart(_load_unet(config.unet_class, image / "unet"), _load_scheduler(image / "scheduler"), config)


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise InputError("the image part needs the extra `diffusers`: pip install 'atldiff[diffusers]'") from error
    return diffusers


def _named_class(path: Path, index: Any, part: str) -> str:
    """The class that ``model_index.json`` names for ``part``, which must be one of diffusers."""
    entry = index.get(part) if isinstance(index, dict) else None
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(name, str) for name in entry):
        raise ModelError(f"{path / 'model_index.json'} names no {part}; expected a pair of library and class")
    library, name = entry
    if library != "diffusers":
        raise ModelError(
            f"{path} names the {part} {name} of {library!r}, which is not a class of diffusers and cannot be run"
        )
    return name


def _load_unet(name: str, folder: Path) -> Any:
    diffusers = _diffusers()
    found = getattr(diffusers, name, None) if "UNet" in name else None
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise ModelError(f"diffusers {diffusers.__version__} has no U-Net class {name}, so that it cannot be run")
    read_json(folder / CONFIG_NAME)
    try:
        unet, report = found.from_pretrained(  # pyright: ignore[reportAttributeAccessIssue]
            folder, use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True, output_loading_info=True
        )
    except Exception as error:
        reason = textwrap.shorten(str(error), 300)
        raise ModelError(f"{folder} does not hold a {name} that diffusers can load: {reason}") from error
    odd = {kind: sorted(map(str, report[kind]))[:3] for kind in ("missing_keys", "unexpected_keys") if report[kind]}
    if odd:
        raise ModelError(f"{folder} does not fit a {name}: {odd}")
    return unet.eval().requires_grad_(False)


def _load_scheduler(folder: Path) -> Any:
    read_json(folder / "scheduler_config.json")
    try:
        return _diffusers().DDIMScheduler.from_pretrained(folder, local_files_only=True)
    except (OSError, TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{folder} does not hold a DDIMScheduler: {textwrap.shorten(str(error), 300)}") from error


@torch.no_grad()
def _takes_clips(unet: Any) -> bool:
    """Try the U-Net on a small clip, then on a small picture; whether the clip went through."""
    settings, parameters = unet.config, inspect.signature(unet.forward).parameters
    side = 4 * 2 ** (len(settings.block_out_channels) - 1)
    conditions = {}
    if "encoder_hidden_states" in parameters:
        width = settings.cross_attention_dim
        conditions["encoder_hidden_states"] = torch.zeros(1, 4, width if isinstance(width, int) else width[0])
    if settings.get("num_class_embeds"):
        conditions["class_labels"] = torch.zeros(1, dtype=torch.long)
    failures = []
    for frames in ((2,), ()):
        sample = torch.zeros(1, settings.in_channels, *frames, side, side)
        try:
            predicted = unet(sample, 1, **conditions).sample
        except Exception as error:
            failures.append(f"{type(error).__name__}: {textwrap.shorten(str(error), 150)}")
            continue
        if predicted.shape[2:] == sample.shape[2:]:
            return bool(frames)
        failures.append(f"an output of the shape {tuple(predicted.shape)} for {tuple(sample.shape)}")
    raise ModelError(
        f"{type(unet).__name__} cannot be run: with a clip, {failures[0]}; with a picture, {failures[1]}"
    )


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
