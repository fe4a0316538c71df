"""Trained parts → a model folder that the pipeline loads."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from atldiff.errors import InputError, ModelError, OutputError
from atldiff.models.loading import DEFAULT_MODEL, INDEX_NAME
from atldiff.models.registry import (
    DISTILLED_FOLDER,
    LANDMARK_FOLDER,
    STREAMING_FOLDER,
    UNET_FOLDER,
    WAV2VEC2_FOLDER,
    WHISPER,
    image_kind,
)
from atldiff.pipeline import ATLDiffPipeline
from atldiff.storage.files import read_json, write_json
from atldiff.storage.parts import CONFIG_NAME, WEIGHTS_NAME
from atldiff.training.engine.checkpoint import Checkpoints

CARD_NAME = "README.md"


def assemble(
    runs: Sequence[Path], output: Path, base: str | Path = DEFAULT_MODEL, streaming: Path | None = None
) -> Path:
    """Write a model: the parts that ``runs`` trained, the others those of ``base``.

    Args:
        runs: folders of training runs or of converted checkpoints, no two of the same part.
        output: the model's folder, which must not be there yet. Its card names the parts and their origin.
        base: ``compact``, or the folder of a model.
        streaming: folder of a run of the speech encoder, whose parts streaming mode is to use. Without it a landmark
            generator of ``runs`` serves there too.

    Raises:
        InputError: a run has no trained part of this model, or two have the same one.
        ModelError: the parts do not make a model that can be loaded.
        OutputError: ``output`` is there already, or cannot be written.
    """
    if output.exists():
        raise OutputError(f"{output} is there already; expected the name of a new folder")
    pipeline = ATLDiffPipeline.from_pretrained(base, device="cpu")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            made = Path(folder) / output.name
            pipeline.save_pretrained(made)
            origins = _put_in(made, runs)
            with _naming_runs(made, origins):
                if LANDMARK_FOLDER in origins:
                    _put_in_speech_encoder(made, origins[LANDMARK_FOLDER])
                if streaming is not None:
                    _put_in_streaming(made, streaming)
                    origins[STREAMING_FOLDER] = streaming
                if UNET_FOLDER in origins:
                    write_json(made / INDEX_NAME, read_json(made / INDEX_NAME) | {"steps": image_kind(made).steps})
                ATLDiffPipeline.from_pretrained(made, device="cpu")
            (made / CARD_NAME).write_text(_card(output.name, origins, base))
            made.rename(output)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror}); expected a writable folder") from error
    return output


@contextlib.contextmanager
def _naming_runs(made: Path, origins: dict[str, Path]) -> Iterator[None]:
    """What is wrong with a part of the model ``made``, which is not in its place yet, is told of its run."""
    try:
        yield
    except ModelError as error:
        message = str(error)
        for part, run in origins.items():
            message = message.replace(str(made / part), str(run / part))
        raise ModelError(message) from error


def _put_in(made: Path, runs: Sequence[Path]) -> dict[str, Path]:
    """Put the parts of ``runs`` into the model folder ``made`` and return which run each part comes from."""
    parts = sorted({path.parent.name for path in made.glob(f"*/{CONFIG_NAME}")} - {DISTILLED_FOLDER})
    origins: dict[str, Path] = {}
    for run in runs:
        found = [part for part in parts if (run / part / WEIGHTS_NAME).is_file()]
        if not found:
            raise InputError(
                f"{run} holds none of the parts {', '.join(parts)}; expected the folder of a training run"
            )
        for part in found:
            if part in origins:
                raise InputError(f"both {origins[part]} and {run} hold a {part}; expected one of them")
            origins[part] = run
            shutil.rmtree(made / part)
            shutil.copytree(run / part, made / part)
    return origins


def _put_in_speech_encoder(made: Path, run: Path) -> None:
    """Name in the model's index, and bring along, what the landmark generator of ``run`` hears through."""
    index, config = read_json(made / INDEX_NAME), read_json(made / LANDMARK_FOLDER / CONFIG_NAME)
    for folder in (DISTILLED_FOLDER, STREAMING_FOLDER):
        shutil.rmtree(made / folder, ignore_errors=True)
    index["streaming_encoder"] = ""
    if (run / DISTILLED_FOLDER).is_dir():
        shutil.copytree(run / DISTILLED_FOLDER, made / DISTILLED_FOLDER)
        index |= {"preset": "compact", "speech_encoder": DISTILLED_FOLDER}
    elif "class_name" not in config:
        index |= {"preset": "compact", "speech_encoder": WHISPER}
    else:
        encoder = str(run / WAV2VEC2_FOLDER)
        if not Path(encoder).is_dir():
            encoder = Checkpoints(run, keep=1).best()["settings"]["speech_encoder"]
        if Path(encoder).is_dir():
            shutil.copytree(encoder, made / WAV2VEC2_FOLDER)
            encoder = WAV2VEC2_FOLDER
        index |= {"preset": "paper", "speech_encoder": encoder}
    write_json(made / INDEX_NAME, index)


def _put_in_streaming(made: Path, run: Path) -> None:
    """Put what ``run`` trained, a speech encoder and its landmark generator, into the folder for streaming mode."""
    shutil.rmtree(made / STREAMING_FOLDER, ignore_errors=True)
    for part in (DISTILLED_FOLDER, LANDMARK_FOLDER):
        if not (run / part / WEIGHTS_NAME).is_file():
            raise InputError(f"{run} holds no {part}; expected the folder of a run of atldiff train speech")
        shutil.copytree(run / part, made / STREAMING_FOLDER / part)
    write_json(made / INDEX_NAME, read_json(made / INDEX_NAME) | {"streaming_encoder": DISTILLED_FOLDER})


def _card(name: str, origins: dict[str, Path], base: str | Path) -> str:
    trained = "".join(f"- `{part}`: trained in `{run}`\n" for part, run in origins.items())
    return (
        f"# Model card: `{name}`\n\n{trained}- all else: from `{base}`, under its terms\n\n"
        "Say here what the parts were trained on, under which licence, with which commands, and what they reach.\n"
    )
