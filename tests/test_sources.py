"""Listing of source trees: the four layouts, tar files, splits, keys, the limit, and what is refused."""

import io
import logging
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from atldiff.data.sources import KINDS, MediaSource, SourceClip, list_clips
from atldiff.data.splits import SPLIT_RULE, SPLITS, assign_splits
from atldiff.errors import FaceError, InputError

MEAD_TAKE = "angry/level_1/001"
CREMA_D_VAL = {"1015", "1020", "1021", "1030", "1050", "1070", "1079", "1089", "1090"}


def make_tree(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    return folder


def make_tar(path: Path, *members: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in members:
            content = f"content of {name}".encode()
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def write_manifest(folder: Path, *lines: str) -> Path:
    (folder / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def by_key(clips: Iterable[SourceClip]) -> dict[str, SourceClip]:
    return {clip.key: clip for clip in clips}


def speakers_by_split(clips: Iterable[SourceClip]) -> dict[str, set[str]]:
    speakers: dict[str, set[str]] = {split: set() for split in SPLITS}
    for clip in clips:
        speakers[clip.split].add(clip.speaker)
    return speakers


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, logger="atldiff"):
        yield caplog


def test_mead_tree(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        f"M003/video/front/{MEAD_TAKE}.mp4",
        f"M003/video/left_30/{MEAD_TAKE}.mp4",
        f"M003/audio/{MEAD_TAKE}.m4a",
        "W009/video/front/surprised/level_3/030.mp4",
        "W009/audio/surprised/level_3/030.m4a",
        "W009/video/front/surprised/level_3/._030.mp4",
        "list_full_mead.txt",
    )
    clips = by_key(list_clips("mead", tmp_path))
    assert list(clips) == ["MEAD/M003/front-angry-level_1-001", "MEAD/W009/front-surprised-level_3-030"]
    angry, surprised = clips.values()
    assert (angry.corpus, angry.speaker, angry.emotion, angry.level) == ("MEAD", "M003", "angry", "level_1")
    assert angry.picture.path == tmp_path / f"M003/video/front/{MEAD_TAKE}.mp4"
    assert angry.sound.path == tmp_path / f"M003/audio/{MEAD_TAKE}.m4a"
    assert angry.audio_lag_s is None
    assert (surprised.emotion, surprised.level) == ("surprised", "level_3")


def test_mead_views_and_one_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(
        tmp_path,
        f"M003/video/front/{MEAD_TAKE}.mp4",
        f"M003/video/left_30/{MEAD_TAKE}.mp4",
        f"M003/audio/{MEAD_TAKE}.m4a",
    )
    (clip,) = list_clips("mead", tmp_path / "M003", view="left_30")
    assert clip.key == "MEAD/M003/left_30-angry-level_1-001"
    assert clip.sound.path.name == "001.m4a"
    monkeypatch.chdir(tmp_path / "M003")
    assert [clip.key for clip in list_clips("mead", Path())] == ["MEAD/M003/front-angry-level_1-001"]
    with pytest.raises(
        InputError, match=r"no clips of the view 'top' in .*; it has the views \['front', 'left_30'\]"
    ):
        list_clips("mead", tmp_path, view="top")
    with pytest.raises(
        InputError, match="view is 'behind' for mead; expected front, or for mead one of front, left_30"
    ):
        list_clips("mead", tmp_path, view="behind")
    with pytest.raises(InputError, match="view is 'top' for grid"):
        list_clips("grid", tmp_path, view="top")


@pytest.mark.parametrize("video", ["video/front", "front", "./video/front", "M003/video/front"])
@pytest.mark.parametrize("audio", ["audio/", "", "./", "x/y/audio/"])
def test_mead_tars(tmp_path: Path, video: str, audio: str) -> None:
    make_tar(tmp_path / "M003/video.tar", f"{video}/{MEAD_TAKE}.mp4", f"{video}/angry/level_1/._001.mp4")
    make_tar(tmp_path / "M003/audio.tar", f"{audio}{MEAD_TAKE}.m4a")
    (clip,) = list_clips("mead", tmp_path)
    assert clip.key == "MEAD/M003/front-angry-level_1-001"
    assert clip.picture == MediaSource(tmp_path / "M003/video.tar", f"{video}/{MEAD_TAKE}.mp4")
    assert clip.sound == MediaSource(tmp_path / "M003/audio.tar", f"{audio}{MEAD_TAKE}.m4a")
    assert clip.picture.inside(tmp_path) == f"M003/video.tar:{video}/{MEAD_TAKE}.mp4"


def test_mead_tars_named_after_the_actor_and_unpacked_takes_first(tmp_path: Path) -> None:
    make_tar(tmp_path / "W040_video.tar", "front/happy/level_2/001.mp4", "front/happy/level_2/002.mp4")
    make_tree(tmp_path, "W040/video/front/happy/level_2/001.mp4", "W040/audio/happy/level_2/002.m4a")
    clips = by_key(list_clips("mead", tmp_path))
    assert list(clips) == ["MEAD/W040/front-happy-level_2-001", "MEAD/W040/front-happy-level_2-002"]
    first, second = clips.values()
    assert first.picture == MediaSource(tmp_path / "W040/video/front/happy/level_2/001.mp4")
    assert second.picture.member == "front/happy/level_2/002.mp4"
    assert second.sound.path.name == "002.m4a"


def test_mead_video_without_a_sound_file_keeps_its_own_sound(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    make_tree(tmp_path, f"M003/video/front/{MEAD_TAKE}.mp4", "M003/video/front/bored/level_1/001.mp4")
    (clip,) = list_clips("mead", tmp_path)
    assert clip.sound == clip.picture
    assert "1 videos have no file in audio/" in warnings.text
    assert "left out, for example" in warnings.text
    assert "bored/level_1/001.mp4" in warnings.text


def test_member_of_a_tar_is_a_plain_file_while_it_is_open(tmp_path: Path) -> None:
    names = [f"front/angry/level_1/{take:03d}.mp4" for take in range(1, 40)]
    archive = make_tar(tmp_path / "video.tar", *names)
    for name in (names[0], names[17], names[-1]):
        with MediaSource(archive, name).open() as path:
            assert path.read_bytes() == f"content of {name}".encode()
            assert path.suffix == ".mp4"
        assert not path.exists()
        assert not path.parent.exists()
    plain = make_tree(tmp_path, "plain.mp4") / "plain.mp4"
    with MediaSource(plain).open() as path:
        assert path == plain
    assert plain.exists()


def test_temporary_copy_goes_after_an_error_and_is_not_named_in_it(tmp_path: Path) -> None:
    source = MediaSource(make_tar(tmp_path / "video.tar", "front/001.mp4"), "front/001.mp4")
    paths = []
    with pytest.raises(RuntimeError), source.open() as path:
        paths.append(path)
        raise RuntimeError
    with pytest.raises(FaceError, match=r"video\.tar:front/001\.mp4 has no face") as caught, source.open() as path:
        paths.append(path)
        raise FaceError(f"{path} has no face")
    assert str(paths[1]) not in str(caught.value)
    assert not any(path.exists() or path.parent.exists() for path in paths)


def test_bad_tars_are_named(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "M003/video.tar", *(f"front/angry/level_1/{take:03d}.mp4" for take in range(9)))
    whole = archive.read_bytes()
    with (
        pytest.raises(InputError, match=r"video\.tar has no member 'gone\.mp4'; it has 9 others"),
        MediaSource(archive, "gone.mp4").open(),
    ):
        pass
    damaged = bytearray(whole)
    damaged[4 * 1024 : 4 * 1024 + 512] = b"x" * 512
    contents = {"cut": whole[: 3 * 1024 + 600], "damaged": bytes(damaged), "empty": b"", "text": b"no tar" * 500}
    for name, content in contents.items():
        folder = tmp_path / name / "M003"
        folder.mkdir(parents=True)
        (folder / "video.tar").write_bytes(content)
        with pytest.raises(InputError, match=r"video\.tar .*; expected an uncompressed, complete tar file"):
            list_clips("mead", tmp_path / name)
    with tarfile.open(tmp_path / "compressed.tar", "w:gz") as compressed:
        compressed.add(archive)
    with (
        pytest.raises(InputError, match="expected an uncompressed"),
        MediaSource(tmp_path / "compressed.tar", "x").open(),
    ):
        pass


def test_crema_d_tree_prefers_wav_then_mp3_then_the_videos_own_sound(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    make_tree(
        tmp_path,
        "VideoFlash/1001_DFA_ANG_XX.flv",
        "VideoFlash/1001_IEO_DIS_LO.flv",
        "VideoFlash/1015_WSI_SAD_XX.flv",
        "VideoFlash/trailer.flv",
        "AudioWAV/1001_DFA_ANG_XX.wav",
        "AudioMP3/1001_DFA_ANG_XX.mp3",
        "AudioMP3/1001_IEO_DIS_LO.mp3",
        "processedResults/summaryTable.csv",
    )
    clips = by_key(list_clips("crema-d", tmp_path))
    assert list(clips) == [
        "CREMA-D/1001/1001_DFA_ANG_XX",
        "CREMA-D/1001/1001_IEO_DIS_LO",
        "CREMA-D/1015/1015_WSI_SAD_XX",
    ]
    angry, disgusted, sad = clips.values()
    assert [clip.sound.path.suffix for clip in clips.values()] == [".wav", ".mp3", ".flv"]
    assert [clip.emotion for clip in clips.values()] == ["angry", "disgusted", "sad"]
    assert [clip.level for clip in clips.values()] == ["XX", "LO", "XX"]
    assert [clip.split for clip in clips.values()] == ["train", "train", "val"]
    assert (angry.text, disgusted.text) == ("don't forget a jacket", "it's eleven o'clock")
    assert (angry.corpus, angry.speaker, sad.speaker) == ("CREMA-D", "1001", "1015")
    assert "1 videos are not named as in CREMA-D" in warnings.text
    assert "VideoFlash/trailer.flv" in warnings.text


def test_crema_d_has_the_published_split() -> None:
    splits = assign_splits(("CREMA-D", str(actor)) for actor in range(1001, 1092))
    assert Counter(splits.values()) == {"train": 63, "val": 9, "test": 19}
    clips_of = dict.fromkeys(range(1001, 1092), 82) | dict.fromkeys((1008, 1009, 1019), 76) | {1002: 81, 1076: 81}
    not_published = (1006, 1013, 1017, 1040)
    counts: Counter[str] = Counter()
    for actor, clips in clips_of.items():
        counts[splits["CREMA-D", str(actor)]] += clips - (actor in not_published)
    assert counts == {"train": 5144, "val": 738, "test": 1556}
    assert {name for (_, name), split in splits.items() if split == "val"} == CREMA_D_VAL


@pytest.mark.parametrize(
    "folder", ["s1", "s1/video", "s1/video/mpg_6000", "s1.mpg_6000.part1/s1/video/mpg_6000", "s1.mpg_vcd"]
)
@pytest.mark.parametrize("suffix", [".mpg", ".mp4"])
def test_grid_trees(tmp_path: Path, folder: str, suffix: str) -> None:
    make_tree(tmp_path, f"{folder}/bbaf2n{suffix}", "s1/align/bbaf2n.align", f"s34/swwzza{suffix}")
    clips = by_key(list_clips("grid", tmp_path))
    assert list(clips) == ["GRID/s1/bbaf2n", "GRID/s34/swwzza"]
    clip = clips["GRID/s1/bbaf2n"]
    assert clip.picture == clip.sound == MediaSource(tmp_path / f"{folder}/bbaf2n{suffix}")
    assert (clip.corpus, clip.speaker, clip.emotion, clip.text) == ("GRID", "s1", "", "bin blue at f two now")
    assert clips["GRID/s34/swwzza"].text == "set white with z zero again"
    if folder == "s1":
        assert [clip.key for clip in list_clips("grid", tmp_path / "s1")] == ["GRID/s1/bbaf2n"]


def test_grid_sound_and_better_video(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    make_tree(
        tmp_path,
        "s1/bbaf2n.mpg",
        "s1/video/mpg_6000/bbaf2n.mpg",
        "s1/id2_vcd_swwp2s.mpg",
        "s1/holiday.mpg",
        "audio_50kHz/s1_50kHz/bbaf2n.wav",
        "audio_25k/s1/swwp2s.wav",
        "demo/bbaf2n.mpg",
    )
    clips = by_key(list_clips("grid", tmp_path))
    assert list(clips) == ["GRID/s1/bbaf2n", "GRID/s1/holiday", "GRID/s1/swwp2s"]
    assert clips["GRID/s1/bbaf2n"].picture.path == tmp_path / "s1/video/mpg_6000/bbaf2n.mpg"
    assert clips["GRID/s1/bbaf2n"].sound.path == tmp_path / "audio_50kHz/s1_50kHz/bbaf2n.wav"
    assert clips["GRID/s1/swwp2s"].sound == clips["GRID/s1/swwp2s"].picture
    assert clips["GRID/s1/holiday"].text == ""
    assert (
        "1 recordings are cut to the spoken part and are not used, for example audio_25k/s1/swwp2s.wav"
        in warnings.text
    )
    assert (
        "1 videos lie in no folder of a speaker (s1 … s34) and are left out, for example demo/bbaf2n.mpg"
        in warnings.text
    )


def test_folder_of_videos(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    folder = make_tree(
        tmp_path / "my videos",
        "anna/talk.1.mp4",
        "anna/2024/talk.MKV",
        "Jörg/x.webm",
        "anna/notes.txt",
        ".hidden/x.mp4",
        "__MACOSX/x.mp4",
    )
    clips = by_key(list_clips("clips", folder))
    assert list(clips) == ["my_videos/J_rg/x", "my_videos/anna/2024-talk", "my_videos/anna/talk_1"]
    assert {clip.speaker for clip in clips.values()} == {"anna", "Jörg"}
    assert all(clip.sound == clip.picture and clip.audio_lag_s is None for clip in clips.values())
    assert {clip.corpus for clip in clips.values()} == {"my videos"}
    assert not warnings.records


def test_files_that_lie_flat_are_each_another_speaker(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    make_tree(tmp_path / "flat", "a.mp4", "b.mp4")
    assert {clip.speaker for clip in list_clips("clips", tmp_path / "flat")} == {"a", "b"}
    assert "2 clips lie directly in" in warnings.text
    assert "each taken for another speaker" in warnings.text


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    make_tree(tmp_path / "elsewhere", "a.mp4")
    make_tree(tmp_path / "tree", "bob/b.mp4")
    (tmp_path / "tree/anna").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree/bob/back").symlink_to(tmp_path / "tree")
    assert [clip.key for clip in list_clips("clips", tmp_path / "tree")] == ["tree/anna/a", "tree/bob/b"]


def test_manifest(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    write_manifest(
        tmp_path,
        "\ufeffpath,corpus,speaker,emotion,split,audio_lag_s,wdith",
        "lrwar/sp16/11420.mp4,LRW-AR,sp16,,train,0.05,256",
        "x/y.mp4,Own,Jörg,happy,val,-0.1,256",
        "x/z.mp4,,,,test,,",
    )
    make_tree(tmp_path, "unlisted/a.mp4")
    clips = by_key(list_clips("clips", tmp_path))
    corpus = tmp_path.name
    assert set(clips) == {"LRW-AR/sp16/11420", "Own/J_rg/x-y", f"{corpus}/x/z"}
    first = clips["LRW-AR/sp16/11420"]
    assert (first.split, first.audio_lag_s, first.emotion) == ("train", 0.05, "")
    assert first.picture == first.sound == MediaSource(tmp_path / "lrwar/sp16/11420.mp4")
    assert (clips["Own/J_rg/x-y"].emotion, clips["Own/J_rg/x-y"].audio_lag_s) == ("happy", -0.1)
    assert clips[f"{corpus}/x/z"].audio_lag_s is None
    assert "not used: wdith; those that are: path, corpus, speaker, emotion, split, audio_lag_s" in warnings.text


def test_manifest_of_paths_alone(tmp_path: Path) -> None:
    write_manifest(tmp_path, "path", "anna/1.mp4", "bob/1.mp4", "anna/2.mp4")
    clips = list_clips("clips", tmp_path)
    assert len(clips) == 3
    assert sorted(map(len, speakers_by_split(clips).values())) == [0, 1, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("/etc/passwd,,,", "path is '/etc/passwd'; expected a path inside the folder"),
        ("../x.mp4,,,", "expected a path inside the folder"),
        ("a/../../x.mp4,,,", "expected a path inside the folder"),
        (",,,", "path is ''; expected a path inside the folder"),
        ("x.mp4,,,soon", "audio_lag_s is 'soon'; expected seconds"),
        ("x.mp4,,,nan", "audio_lag_s is 'nan'; expected seconds"),
        ("x.mp4,,,-5", "audio_lag_s is '-5'; expected seconds from -1 to 1"),
        ("x.mp4,,,1.01", "audio_lag_s is '1.01'; expected seconds from -1 to 1"),
        ("x.mp4,bored,,", "emotion is 'bored'; expected nothing or one of angry, fear"),
        ("x.mp4,,dev,", "split is 'dev'; expected a split in every row or in none"),
        ("./good.mp4,,,", "'good.mp4' is listed in line 2 too; expected one row a clip"),
    ],
)
def test_manifest_mistakes_are_named_with_their_line(tmp_path: Path, row: str, message: str) -> None:
    write_manifest(tmp_path, "path,emotion,split,audio_lag_s", "good.mp4,,,", row)
    with pytest.raises(InputError, match=r"clips\.csv, line 3: ") as caught:
        list_clips("clips", tmp_path)
    assert message in str(caught.value)


def test_manifest_that_is_none(tmp_path: Path) -> None:
    write_manifest(tmp_path, "file,speaker", "a.mp4,b")
    with pytest.raises(InputError, match=r"lacks the column 'path'; it has \['file', 'speaker'\]"):
        list_clips("clips", tmp_path)
    write_manifest(tmp_path, "path,speaker")
    with pytest.raises(InputError, match=r"clips\.csv has a header and no rows; expected one row a clip"):
        list_clips("clips", tmp_path)
    write_manifest(tmp_path)
    with pytest.raises(InputError, match="lacks the column 'path'"):
        list_clips("clips", tmp_path)
    write_manifest(tmp_path, "path,split", "a.mp4,validation")
    with pytest.raises(InputError, match="split is 'validation'; expected nothing or one of train, val, test"):
        list_clips("clips", tmp_path)
    (tmp_path / "clips.csv").write_bytes("path\nJörg.mp4\n".encode("latin-1"))
    with pytest.raises(InputError, match="expected comma-separated values in UTF-8"):
        list_clips("clips", tmp_path)


def test_stated_splits_are_kept_and_torn_speakers_named(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    write_manifest(
        tmp_path,
        "path,corpus,split",
        "s1/a.mp4,GRID,train",
        "s1/b.mp4,GRID,val",
        "s2/c.mp4,GRID,train",
        "s3/d.mp4,X,val",
    )
    assert [clip.split for clip in list_clips("clips", tmp_path)] == ["train", "val", "train", "val"]
    assert "not speaker-disjoint: GRID/s1 are in more than one" in warnings.text


def test_own_split_rule() -> None:
    many = [("corpus", f"speaker{number}") for number in range(2000)]
    splits = assign_splits(many)
    counts = Counter(splits.values())
    assert abs(counts["val"] / 2000 - 0.1) < 0.02
    assert abs(counts["test"] / 2000 - 0.1) < 0.02
    assert assign_splits(reversed(many)) == splits
    part = assign_splits(many[:300])
    assert all(splits[speaker] == split for speaker, split in part.items())
    assert "SHA-256" in SPLIT_RULE


@pytest.mark.parametrize("names", [["s1", "s2"], ["s13", "s33"], ["s10", "s11"], ["s10", "s13"], ["s1", "s10"]])
def test_two_speakers_are_one_to_train_and_one_to_validate(names: list[str]) -> None:
    alone = {"s1": "train", "s2": "train", "s13": "val", "s33": "val", "s10": "test", "s11": "test"}
    of_many = assign_splits(("GRID", f"s{number}") for number in range(1, 35))
    assert {name: of_many["GRID", name] for name in names} == {name: alone[name] for name in names}
    assert sorted(assign_splits(("GRID", name) for name in names).values()) == ["train", "val"]


def test_train_actors_of_crema_d_alone_give_one_to_validate() -> None:
    splits = assign_splits(("CREMA-D", str(actor)) for actor in range(1001, 1010))
    assert Counter(splits.values()) == {"train": 8, "val": 1}


def test_one_speaker_is_for_training(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    make_tree(tmp_path, "s13/bbaf2n.mpg", "s13/bbaf3s.mpg")
    assert {clip.split for clip in list_clips("grid", tmp_path)} == {"train"}
    assert "one speaker, s13: all clips are in train" in warnings.text


def test_keys_are_unique_safe_and_the_same_in_every_place(tmp_path: Path) -> None:
    files = [
        "a/x.mp4",
        "a/x.webm",
        "a/X.mp4",
        "b/q.mp4",
        "b/Q.mp4",
        "a/x y.mp4",
        "a/x_y.mp4",
        "a/b/c.mp4",
        "a/b-c.mp4",
        "数据/话.mp4",
        "图像/话.mp4",
    ]
    first = list_clips("clips", make_tree(tmp_path / "one/set", *files))
    second = list_clips("clips", make_tree(tmp_path / "two/set", *reversed(files)))
    keys = [clip.key for clip in first]
    assert keys == sorted(keys) == [clip.key for clip in second]
    assert len({key.casefold() for key in keys}) == len(files)
    for key in keys:
        assert key.isascii()
        assert key.replace("/", "").replace("_", "").replace("-", "").isalnum()
        assert len(key.split("/")) == 3
    assert [clip.split for clip in first] == [clip.split for clip in second]


def test_limit_takes_from_every_split_and_speaker_in_turn(tmp_path: Path) -> None:
    files = [f"s{speaker}/bbaf{digit}n.mpg" for speaker in range(1, 35) for digit in range(1, 10)]
    make_tree(tmp_path, *files, "s1/video/bbal1n.mpg")
    everything = list_clips("grid", tmp_path)
    assert len(everything) == 34 * 9 + 1
    few = list_clips("grid", tmp_path, limit=6)
    assert len({clip.speaker for clip in few}) == 6
    assert {split: len(names) for split, names in speakers_by_split(few).items()} == {"train": 2, "val": 2, "test": 2}
    assert few == list_clips("grid", tmp_path, limit=6)
    assert set(few) < set(everything)
    counts = Counter(clip.speaker for clip in list_clips("grid", tmp_path, limit=3 * 34))
    assert set(counts.values()) == {3}
    assert [clip.key for clip in list_clips("grid", tmp_path, limit=3 * 34) if clip.speaker == "s7"] == [
        "GRID/s7/bbaf1n",
        "GRID/s7/bbaf3n",
        "GRID/s7/bbaf6n",
    ]
    chosen: set[SourceClip] = set()
    for limit in (*range(1, 40), 100, 150, 200, 306, 307):
        before, chosen = chosen, set(list_clips("grid", tmp_path, limit=limit))
        assert before < chosen
        assert len(chosen) == limit
    assert list_clips("grid", tmp_path, limit=1000) == everything
    with pytest.raises(InputError, match="limit is 0; expected at least 1 clip"):
        list_clips("grid", tmp_path, limit=0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_clips(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"no clips in .*; expected .*; it has no files"):
        list_clips(kind, tmp_path)
    make_tree(tmp_path, "readme.txt", "zzz.txt")
    with pytest.raises(InputError, match=r"no clips in .*; it has 2 files, for example readme\.txt"):
        list_clips(kind, tmp_path)
    with pytest.raises(InputError, match=r"readme\.txt is a file; expected a folder"):
        list_clips(kind, tmp_path / "readme.txt")
    with pytest.raises(InputError, match="gone is not there; expected a folder"):
        list_clips(kind, tmp_path / "gone")
    with pytest.raises(InputError, match="unknown kind of data 'vox'; expected one of mead, crema-d, grid, clips"):
        list_clips("vox", tmp_path)


def test_folder_that_may_not_be_read() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = make_tree(Path(name), "s1/a.mpg", "s2/b.mpg")
        folder.chmod(0o755)
        (folder / "s2").chmod(0)
        try:
            if not user:
                os.seteuid(65534)
            with pytest.raises(InputError, match=r"s2 cannot be read \(Permission denied\)"):
                list_clips("grid", folder)
        finally:
            os.seteuid(user)
            (folder / "s2").chmod(0o755)


def test_git_lfs_pointers_are_refused(tmp_path: Path) -> None:
    make_tree(tmp_path, "VideoFlash/1001_DFA_ANG_XX.flv")
    pointer = make_tree(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav") / "AudioWAV/1001_DFA_ANG_XX.wav"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n")
    with pytest.raises(InputError, match=r"AudioWAV/1001_DFA_ANG_XX\.wav is a Git LFS pointer; expected the media"):
        list_clips("crema-d", tmp_path)
