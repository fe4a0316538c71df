"""The folder that is being prepared: what it was begun with, who works in it, what was left lying about."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atldiff.data.prepared import FINDINGS_NAME, INDEX_NAME, SHARDS_NAME
from atldiff.errors import InputError
from atldiff.processes.locks import hold_lock
from atldiff.storage.files import write_json

CARD_NAME = "README.md"

_SETTINGS_NAME = "settings.json"
_LOCK_NAME = ".lock"
_OLD_FINDINGS_NAME = f"{FINDINGS_NAME}-done"


def check_settings(folder: Path, settings: dict[str, Any], record: dict[str, Any] | None) -> None:
    """Refuse a folder that holds something else or was begun with other settings.

    Args:
        record: of the index, where there is one; it holds the settings of the run that wrote it.

    Raises:
        InputError: it does.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder to prepare clips in")
    findings = folder / FINDINGS_NAME
    if record is None and not findings.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} holds other files; expected an empty folder, a new one, or one of prepared clips")
    begun = [] if record is None else [record["settings"]]
    if (findings / _SETTINGS_NAME).is_file():
        begun.append(json.loads((findings / _SETTINGS_NAME).read_text()))
    for before in begun:
        changed = [
            f"{name} {before.get(name)}, now {value}" for name, value in settings.items() if before.get(name) != value
        ]
        if changed:
            raise InputError(f"{folder} was begun with {'; '.join(changed)}; expected the same, or another folder")


@contextlib.contextmanager
def workplace(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Make ``folder`` ready to be worked in, keep others out of it, and remove the findings at the end.

    Raises:
        InputError: another process works in it.
    """
    findings = folder / FINDINGS_NAME
    findings.mkdir(parents=True, exist_ok=True)
    with hold_lock(findings / _LOCK_NAME, f"another process is preparing {folder}", "expected it to end first"):
        remove_leftovers(folder)
        write_json(findings / _SETTINGS_NAME, settings)
        yield
        findings.replace(folder / _OLD_FINDINGS_NAME)
        shutil.rmtree(folder / _OLD_FINDINGS_NAME, ignore_errors=True)  # another process may be at it, too


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left: half-written files, which have hidden names, and findings done with."""
    shutil.rmtree(folder / _OLD_FINDINGS_NAME, ignore_errors=True)
    names = (f".{INDEX_NAME}.*", f".{CARD_NAME}.*", f"{SHARDS_NAME}/.*", f"{FINDINGS_NAME}/**/.*")
    for path in [path for name in names for path in folder.glob(name)]:
        if path.name != _LOCK_NAME:
            path.unlink()
