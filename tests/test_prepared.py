"""Prepared clips of several folders are read as one."""

import json
from pathlib import Path

import numpy as np
import pytest

from atldiff.data.prepared import INDEX_NAME, JSON_INDEX_NAME, ClipInfo, PreparedClips, read_rows
from atldiff.errors import InputError
from atldiff.options import EMOTIONS
from prepared_files import write_prepared


def test_a_folder_of_prepared_folders_is_read_as_one(tmp_path: Path) -> None:
    one = PreparedClips.open(write_prepared(tmp_path / "all" / "one", ["train", "train", "val"], frames=9))
    (tmp_path / "all" / "notes").mkdir()
    both = PreparedClips.open(tmp_path / "all")
    assert [clip.info.key for clip in both.clips] == [clip.info.key for clip in one.clips]
    for clip, same in zip(both.clips, one.clips, strict=True):
        assert np.array_equal(clip.frames(2, 3), same.frames(2, 3))
        assert np.array_equal(clip.landmarks(), same.landmarks())
    write_prepared(tmp_path / "all" / "two", ["train"] * 5, frames=9)
    with pytest.raises(InputError, match="two has the clip made/train0/0 a second time"):
        PreparedClips.open(tmp_path / "all")


def test_another_folder_is_told_from_one_of_prepared_clips(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make one with: atldiff prepare clips"):
        PreparedClips.open(tmp_path)
    with pytest.raises(InputError, match="is not a folder of prepared clips"):
        PreparedClips.open(tmp_path / "nowhere")


@pytest.mark.parametrize("left", [".parts", "shards"])
def test_a_folder_that_is_not_finished_is_named(tmp_path: Path, left: str) -> None:
    write_prepared(tmp_path / "one", ["train", "val"], frames=9)
    (tmp_path / "two" / left).mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "two"):
        with pytest.raises(InputError, match="two is not finished: it holds clips and no"):
            PreparedClips.open(folder)
    write_prepared(tmp_path / "three", ["train"], frames=9)
    (tmp_path / "three" / ".parts").mkdir()
    assert len(PreparedClips.open(tmp_path / "three").clips) == 1


def test_clips_are_in_the_same_order_from_either_index(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "one", ["train"] * 5 + ["val"], frames=9)
    rows = read_rows(folder)
    (folder / INDEX_NAME).unlink()
    (folder / JSON_INDEX_NAME).write_text(json.dumps(rows[::-1]))
    assert [clip.info.key for clip in PreparedClips.open(folder).clips] == sorted(row["key"] for row in rows)


def test_emotions_have_the_class_numbers_of_mead() -> None:
    info = {"key": "", "corpus": "", "speaker": "", "split": "", "shard": "", "frames": 1, "fps": 25.0, "size": 64}
    numbers = {name: ClipInfo(**info, emotion=name, members={}).emotion_id for name in (*EMOTIONS, "", "bored")}
    assert numbers == {
        "angry": 0,
        "fear": 1,
        "sad": 2,
        "contempt": 3,
        "happy": 4,
        "surprised": 5,
        "disgusted": 6,
        "neutral": 7,
        "": None,
        "bored": None,
    }
