"""Batches: what is made, kept and made anew, what a bad job or a killed process leaves, and the report."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
import torch

from atldiff.cli import main
from atldiff.errors import ATLDiffError, InputError, ModelError
from atldiff.processes.workers import LostWorker, run_apart
from atldiff.render.batch import CSV_REPORT, FAILED, JSON_REPORT, KEPT, MADE, BatchResult, read_jobs, run_batch

torch.set_num_threads(1)


@pytest.fixture
def inputs(tmp_path: Path, portrait: Path, word: Path) -> Path:
    """A folder with a portrait, a picture that is none, and speech."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    shutil.copy(portrait, folder / "face.jpg")
    shutil.copy(word, folder / "word.wav")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def write_table(folder: Path, *rows: str, columns: str = "portrait,speech,output,fps,crop_only") -> Path:
    path = folder / "jobs.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def statuses(results: list[BatchResult]) -> list[str]:
    return [result.status for result in results]


def length(path: Path) -> int:
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def test_rows_become_jobs(inputs) -> None:
    table = write_table(
        inputs,
        "face.jpg,word.wav,,12.5,yes,",
        "face.jpg,word.wav,,,,",
        "sub/face.png,/else/word.wav,a/b.mp4,,no,yes",
        columns="portrait,speech,output,fps,crop_only,badge",
    )
    first, second, third = read_jobs(table, Path("/out"))
    assert (first.portrait, first.speech) == (inputs / "face.jpg", inputs / "word.wav")
    assert (first.output, second.output) == (Path("/out/face_word.mp4"), Path("/out/face_word_2.mp4"))
    assert first.options == {"fps": 12.5, "crop_only": True}
    assert (third.portrait, third.speech) == (inputs / "sub/face.png", Path("/else/word.wav"))
    assert (third.output, third.options) == (Path("/out/a/b.mp4"), {"crop_only": False, "badge": True})
    assert not any(job.fault for job in (first, second, third))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (",s.wav,,,", "no portrait or no speech"),
        ("p.jpg,s.wav,../x.mp4,,", "inside the batch's folder"),
        ("p.jpg,s.wav,/x.mp4,,", "inside the batch's folder"),
        ("p.jpg,s.wav,x.avi,,", "ends in .mp4"),
        ("p.jpg,s.wav,.atldiff-batch/x.mp4,,", "inside the batch's folder"),
        ("p.jpg,s.wav,,fast,", "fps is 'fast'"),
        ("p.jpg,s.wav,,500,", "fps is 500"),
        ("p.jpg,s.wav,,,perhaps", "crop_only is 'perhaps'"),
        ("p.jpg,s.wav,,,,more", "cells too many ('more')"),
        ("p\0.jpg,s.wav,,,", "expected no NUL"),
        ("p.jpg,s.wav," + "x" * 250 + ".mp4,,", "at most 240 bytes"),
        ("p.jpg,s.wav," + "ö" * 120 + ".mp4,,", "at most 240 bytes"),
        ("p.jpg,s.wav,P_S.mp4,,", ""),
    ],
)
def test_a_row_alone_is_at_fault(tmp_path, row, words) -> None:
    good, bad = read_jobs(write_table(tmp_path, "p.jpg,s.wav,,,", row), tmp_path)
    assert good.fault == ""
    assert not words or bad.fault.startswith("line 3: ")
    assert words in bad.fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no rows"),
        ("portrait,speech\n", "no rows"),
        ("portrait,sound\na,b\n", "no rows with the columns"),
        ("portrait,speech,emotions\na,b,happy\n", "column 'emotions'"),
        ("portrait,speech,speech\na,b,c\n", "column 'speech', or twice"),
        ('portrait,speech\na,b\n"a,b\n', "cannot be read at line 3"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, words) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_jobs(path, tmp_path)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin"])
def test_a_row_that_names_a_device_is_refused_at_once(inputs, tmp_path, tiny_model, device) -> None:
    results = run_batch(write_table(inputs, f"face.jpg,{device},,,"), tmp_path / "out", model=tiny_model)
    assert (statuses(results), "not an ordinary file" in results[0].error) == ([FAILED], True)
    with pytest.raises(InputError, match="more than 64 MiB"):
        read_jobs("/dev/zero", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_as_spreadsheets_write_them(tmp_path, encoding, delimiter, end) -> None:
    lines = [
        "Portrait, speech,output,,",
        "",
        'ä.jpg,"two',
        'lines.wav",,,',
        ",,,,",
        "  ",
        "b.jpg,c.wav,x.mp4,,",
        "",
        "",
    ]
    path = tmp_path / "jobs.csv"
    path.write_bytes(end.join([*lines, "", ""]).replace(",", delimiter).encode(encoding))
    first, second = read_jobs(path, tmp_path / "out")
    assert (first.portrait.name, first.line, second.line) == ("ä.jpg", 3, 7)
    assert (second.speech.name, second.row, second.output.name) == ("c.wav", 2, "x.mp4")
    assert first.fault == second.fault == ""


def test_text_that_is_none_is_told_with_its_line(tmp_path) -> None:
    (tmp_path / "jobs.csv").write_bytes("portrait,speech\na,b\nä,c\n".encode("cp1252"))
    with pytest.raises(InputError, match="line 3 is no UTF-8"):
        read_jobs(tmp_path / "jobs.csv", tmp_path)


def test_names_do_not_clash(tmp_path) -> None:
    rows = ["p.jpg,s.wav,,,", "p.jpg,s.wav,p_s.mp4,,", "p.jpg,t.wav,P_S.mp4,,", f"{'ö' * 110}.jpg,{'s' * 200}.wav,,,"]
    jobs = read_jobs(write_table(tmp_path, *rows), tmp_path)
    assert [job.output.name for job in jobs[:2]] == ["p_s_2.mp4", "p_s.mp4"]
    assert jobs[2].fault == "line 4: its output is 'P_S.mp4', as that of line 3; expected another"
    assert jobs[3].fault == ""
    assert len(jobs[3].output.name.encode()) <= 240


def test_good_jobs_are_done_bad_ones_reported_and_nothing_twice(inputs, tmp_path, tiny_model) -> None:
    out = tmp_path / "out"
    rows = ["face.jpg,word.wav,a.mp4,25,yes", "broken.jpg,word.wav,,25,yes", "face.jpg,none.wav,,25,yes"]
    rows += ["face.jpg,word.wav,deep/b.mp4,10,yes", "face.jpg,word.wav,c.mp4,x,yes"]

    def run() -> list[BatchResult]:
        steps: list[tuple[int, int]] = []
        reports: list[int] = []

        def watch(result: BatchResult) -> None:
            assert result.status in (MADE, FAILED)
            if (out / JSON_REPORT).exists():
                reports.append(len(json.loads((out / JSON_REPORT).read_text())["jobs"]))

        results = run_batch(
            write_table(inputs, *rows),
            out,
            workers=1,
            model=tiny_model,
            progress=lambda *step: steps.append(step),
            watch=watch,
        )
        assert all(total == len(rows) for _, total in steps)
        assert set(reports) <= {len(rows)}
        assert len(reports) >= results.count(MADE)
        return results

    first = run()
    assert statuses(first) == [MADE, FAILED, FAILED, MADE, FAILED]
    assert [length(out / name) for name in ("a.mp4", "deep/b.mp4")] == [30, 12]
    assert [result.frames for result in first] == [30, None, None, 12, None]
    assert "broken.jpg cannot be read" in first[1].error
    assert "none.wav does not exist" in first[2].error
    assert "line 6: its fps is 'x'" in first[4].error
    report = json.loads((out / JSON_REPORT).read_text())
    assert report["counts"] == {"made": 2, "kept": 0, "failed": 3, "left": 0}
    with (out / CSV_REPORT).open() as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == statuses(first)

    written = (out / "a.mp4").stat().st_mtime_ns
    rows[3] = "face.jpg,word.wav,deep/b.mp4,5,yes"
    (inputs / "broken.jpg").write_bytes((inputs / "face.jpg").read_bytes())
    assert statuses(run()) == [KEPT, MADE, FAILED, MADE, FAILED]
    assert (out / "a.mp4").stat().st_mtime_ns == written
    assert length(out / "deep/b.mp4") == 6

    (out / "a.mp4").write_bytes(b"damaged")
    rows[3] = "face.jpg,word.wav,deep/b.mp4,10,yes"
    assert statuses(run()) == [MADE, KEPT, FAILED, MADE, FAILED]
    assert statuses(run()) == [KEPT, KEPT, FAILED, KEPT, FAILED]


def test_a_missing_model_is_told_at_once(inputs, tmp_path) -> None:
    with pytest.raises(ModelError, match="no model"):
        run_batch(write_table(inputs, "face.jpg,word.wav,,,"), tmp_path / "out", model=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def die_or_square(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise InputError("three")
    if number == 4:
        raise ZeroDivisionError("four")
    return number * number


def test_a_process_that_dies_takes_only_its_task() -> None:
    outcomes = dict(run_apart(die_or_square, range(6), workers=2))
    assert [outcomes[number] for number in (0, 1, 5)] == [0, 1, 25]
    assert [type(outcomes[number]) for number in (2, 3, 4)] == [LostWorker, InputError, ATLDiffError]
    assert "ended by signal 9" in str(outcomes[2])
    assert (str(outcomes[3]), str(outcomes[4])) == ("three", "ZeroDivisionError: four")
    with pytest.raises(InputError, match="workers is 0"):
        list(run_apart(die_or_square, [1], workers=0))
    assert list(run_apart(die_or_square, [], workers=2)) == []


def test_a_killed_batch_goes_on_where_it_was(inputs, tmp_path, tiny_model, capfd) -> None:
    out = tmp_path / "out"
    rows = [f"face.jpg,word.wav,{number}.mp4,{25 + 5 * number},yes" for number in range(4)]
    command = ["batch", str(write_table(inputs, *rows)), "-o", str(out), "--workers", "1"]
    command += ["--model", str(tiny_model), "--device", "cpu"]
    records = out / ".atldiff-batch"
    with subprocess.Popen([sys.executable, "-m", "atldiff.cli", *command]) as process:
        deadline = time.monotonic() + 120
        while not (records / "0.mp4.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    done = {path.name.removesuffix(".json") for path in records.glob("*.json")}
    times = {name: (out / name).stat().st_mtime_ns for name in done}
    (out / ".3.mp4.0123abcd.mp4").write_bytes(b"half of one")
    assert main(command) == 0
    assert f"{4 - len(done)} videos made, {len(done)} kept" in capfd.readouterr().out
    assert {name: (out / name).stat().st_mtime_ns for name in done} == times
    assert [length(out / f"{number}.mp4") for number in range(4)] == [30, 36, 42, 48]
    assert sorted(path.name for path in out.glob(".*")) == [".atldiff-batch"]


def test_the_exit_code_tells_of_failures(inputs, tmp_path, tiny_model, capfd) -> None:
    table = write_table(inputs, "face.jpg,none.wav,,,")
    assert main(["batch", str(table), "-o", str(tmp_path / "out"), "--model", str(tiny_model)]) == 2
    out, err = capfd.readouterr()
    folder = tmp_path / "out"
    assert out == f"{folder}: 0 videos made, 0 kept, 1 failed; see {folder / CSV_REPORT}\n"
    line, last = err.splitlines()
    assert line.startswith(f"atldiff: {folder / 'face_none.mp4'}: failed: {inputs / 'none.wav'} does not exist")
    assert last == f"atldiff: error: 1 of 1 jobs failed; {folder / CSV_REPORT} says why"


def test_a_ray_cluster_of_two_does_the_same(inputs, tmp_path, tiny_model, monkeypatch) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")

    out = tmp_path / "out"
    rows = ["face.jpg,word.wav,a.mp4,10,yes", "broken.jpg,word.wav,b.mp4,10,yes", "face.jpg,word.wav,c.mp4,5,yes"]
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
        table = write_table(inputs, *rows)
        results = run_batch(table, out, model=tiny_model, device="cpu", ray_address=cluster.address)
        assert statuses(results) == [MADE, FAILED, MADE]
        assert [length(out / name) for name in ("a.mp4", "c.mp4")] == [12, 6]
        assert "broken.jpg cannot be read" in results[1].error
    finally:
        cluster.shutdown()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://localhost:9", "[::1]:9", "127.0.0.1:99999"])
def test_a_ray_address_where_nothing_is_is_told_at_once(inputs, tmp_path, tiny_model, address) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.raises(InputError, match="no Ray cluster at"):
        run_batch(write_table(inputs, "face.jpg,word.wav,,,"), tmp_path, model=tiny_model, ray_address=address)


def test_size_shape_background_and_track_are_columns(tmp_path) -> None:
    table = tmp_path / "jobs.csv"
    table.write_text(
        "portrait,speech,max_size,aspect,background,audio_track\n"
        "a.png,b.wav,640,9:16,blur,2\na.png,b.wav,,,,\na.png,b.wav,63,,,\na.png,b.wav,,wide,,\n"
        "a.png,b.wav,,,no colour,\na.png,b.wav,,,,0\n"
    )
    first, second, *wrong = read_jobs(table, tmp_path / "out")
    assert first.options == {"max_size": 640, "aspect": "9:16", "background": "blur", "audio_track": 2}
    assert (second.options, second.fault) == ({}, "")
    words = ("max_size is 63", "aspect is 'wide'", "no colour", "audio_track is 0")
    assert [text in job.fault for text, job in zip(words, wrong, strict=True)] == [True] * 4
