"""Prepared clips of several folders are read as one."""

from pathlib import Path

import numpy as np
import pytest

from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError
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
