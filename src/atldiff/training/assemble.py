"""Trained parts → a model folder that the pipeline loads."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from atldiff.errors import InputError, OutputError
from atldiff.landmarks.loading import LANDMARK_FOLDER, WAV2VEC2_FOLDER, WHISPER
from atldiff.pipeline import DEFAULT_MODEL, INDEX_NAME, ATLDiffPipeline
from atldiff.serialization import CONFIG_NAME, WEIGHTS_NAME, read_json, write_json
from atldiff.training.checkpoint import Checkpoints

CARD_NAME = "README.md"


def assemble(runs: Sequence[Path], output: Path, base: str | Path = DEFAULT_MODEL) -> Path:
    """Write a model: the parts that ``runs`` trained, the others those of ``base``.

    Args:
        runs: folders of training runs or of converted checkpoints, no two of the same part.
        output: the model's folder, which must not be there yet. Its card names the parts and their origin.
        base: ``compact``, or the folder of a model.

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
            if LANDMARK_FOLDER in origins:
                _put_in_speech_encoder(made, origins[LANDMARK_FOLDER])
            ATLDiffPipeline.from_pretrained(made, device="cpu")
            (made / CARD_NAME).write_text(_card(output.name, origins, base))
            made.rename(output)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror}); expected a writable folder") from error
    return output


def _put_in(made: Path, runs: Sequence[Path]) -> dict[str, Path]:
    """Put the parts of ``runs`` into the model folder ``made`` and return which run each part comes from."""
    parts = sorted(path.parent.name for path in made.glob(f"*/{CONFIG_NAME}"))
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
    if "class_name" not in config:
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


def _card(name: str, origins: dict[str, Path], base: str | Path) -> str:
    trained = "".join(f"- `{part}`: trained in `{run}`\n" for part, run in origins.items())
    return (
        f"# Model card: `{name}`\n\n{trained}- all else: from `{base}`, under its terms\n\n"
        "Say here what the parts were trained on, under which licence, with which commands, and what they reach.\n"
    )
