"""``atldiff train``: the parts of the model, from prepared clips."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atldiff.cli.common import check_folder, make_folder
from atldiff.errors import InputError

EXAMPLES = """examples:
  atldiff train landmarks prepared -o runs/landmarks
  atldiff train diffusion prepared -o runs/diffusion --max-time 2h --set steps=20000
"""

_PRESET = "compact"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("part", choices=("landmarks", "speech", "diffusion", "emotion"), help="which part")
    add("data", metavar="DATA", type=Path, help="folder that `atldiff prepare` made; for emotion, of recordings")
    add("-o", "--output", metavar="RUN", required=True, type=Path, help="folder of the run; an old run goes on")
    _add_settings(parser)
    add(
        "--max-time",
        metavar="TIME",
        help="stop after so long (90s, 25m, 2h); run again to go on (default: at the end)",
    )
    add("--devices", metavar="N", type=int, default=1, help="GPUs, or processes on the CPU (default: %(default)s)")
    add("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    add(
        "--pack",
        action="store_true",
        help="write clips, code and a script to train elsewhere to RUN (default: train here)",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--preset", choices=("compact", "paper"), help=f"default: {_PRESET}")
    add(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="settings, such as steps=200 (default: those of the preset)",
    )
    add("--seed", metavar="N", type=int, help="of everything random (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    check_folder(arguments.data)
    if arguments.part == "emotion":
        _train_emotion(arguments)
    else:
        _train(arguments)


def _train_emotion(arguments: argparse.Namespace) -> None:
    from atldiff.training.sound import emotion

    if arguments.max_time or arguments.devices != 1 or arguments.accelerator == "cuda" or arguments.pack:
        raise InputError("the emotion part trains on the CPU in minutes; it takes no time limit, devices or pack")
    settings, config = _settings(arguments, emotion.PRESETS, "emotion classifier")
    make_folder(arguments.output)
    print(f"best weights: {emotion.train_emotion(arguments.data, arguments.output, settings, config)}")


def _train(arguments: argparse.Namespace) -> None:
    from atldiff.data.prepared import PreparedClips
    from atldiff.training.packed_run import options_of_pack, take_in

    _add_options(arguments, options_of_pack(arguments.output, arguments.part))
    if arguments.part == "landmarks":
        from atldiff.training.sound.landmarks import PRESETS
        from atldiff.training.sound.landmarks import landmark_task as PartTask
        from atldiff.training.sound.landmarks import train_landmarks as train

        settings, config = _settings(arguments, PRESETS, "landmark generator")
    elif arguments.part == "speech":
        from atldiff.training.sound.speech_encoder import PRESETS
        from atldiff.training.sound.speech_encoder import SpeechTask as PartTask
        from atldiff.training.sound.speech_encoder import train_speech as train

        settings, config = _settings(arguments, PRESETS, "speech encoder")
    else:
        from atldiff.training.image.diffusion import PRESETS
        from atldiff.training.image.diffusion import diffusion_task as PartTask
        from atldiff.training.image.diffusion import train_diffusion as train

        settings, config = _settings(arguments, PRESETS, "image network")
    data, output, launch = arguments.data, arguments.output, _launch(arguments)
    PreparedClips.open(data)
    if arguments.pack:
        _write_pack(arguments, lambda folder: PartTask(folder, settings, config), settings)
        return

    make_folder(output)
    folder = take_in(output, arguments.part, lambda: PartTask(data, settings, config))
    print(f"best weights: {folder or train(data, output, settings, config, launch)}")


def _write_pack(arguments: argparse.Namespace, make_task: Any, settings: Any) -> None:
    from atldiff.training.pack import write_pack

    if settings.begin_from:
        raise InputError(f"begin_from is {settings.begin_from!r}; a pack takes no weights along, expected none")
    options = ["--preset", arguments.preset or _PRESET]
    options += ["--set", *arguments.set] if arguments.set else []
    options += ["--seed", str(arguments.seed)] if arguments.seed is not None else []
    most_per_speaker = getattr(settings, "most_per_speaker", None)
    packed = write_pack(arguments.data, arguments.output, arguments.part, options, make_task, most_per_speaker)
    print(f"{packed.clips} of {packed.of} clips are packed into {packed.folders} folders: {arguments.output}")


def _add_options(arguments: argparse.Namespace, options: Sequence[str]) -> None:
    """Put ``options`` before those that were given, which are the stronger ones."""
    parser = argparse.ArgumentParser()
    _add_settings(parser)
    added = parser.parse_args(options)
    arguments.preset = arguments.preset or added.preset
    arguments.set = added.set + arguments.set
    arguments.seed = added.seed if arguments.seed is None else arguments.seed


def _settings(arguments: argparse.Namespace, presets: Any, part: str) -> tuple[Any, Any]:
    """The preset's training settings and model configuration, with what ``--set`` and ``--seed`` say."""
    from atldiff.training.engine.settings import change_settings, choose_preset

    settings, config = change_settings(*choose_preset(presets, arguments.preset or _PRESET, part), arguments.set)
    if arguments.seed is not None:
        settings = dataclasses.replace(settings, seed=arguments.seed)
    return settings, config


def _launch(arguments: argparse.Namespace) -> Any:
    from atldiff.training.engine.launch import Launch
    from atldiff.training.engine.settings import parse_duration

    limit = {"max_seconds": parse_duration(arguments.max_time)} if arguments.max_time else {}
    return Launch(arguments.accelerator, arguments.devices, quiet=arguments.quiet, **limit)
