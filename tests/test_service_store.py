"""The service's jobs on disk: whose folder it is, what survives, what a full disk and a locked table do."""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from atldiff.errors import InputError, OutputError
from atldiff.serve.problems import Problem
from atldiff.serve.work.store import DONE, FAILED, MARKER_NAME, PORTRAIT, QUEUED, VIDEO, JobStore


def add_job(store: JobStore, video: bytes | None) -> str:
    """A job that has ended: done with a video, or failed without."""
    with store.new_folder() as job_id:
        (store.job_folder(job_id) / PORTRAIT).write_bytes(b"a face")
        store.add(job_id, {"fps": 5.0})
    if video is None:
        store.finish(job_id, Problem(422, "no face", "portrait"))
    else:
        (store.job_folder(job_id) / VIDEO).write_bytes(video)
        store.finish(job_id, {"frames": 1})
    return job_id


def test_jobs_expire(tmp_path) -> None:
    store = JobStore(tmp_path / "data", keep_s=0.5)
    done, failed = add_job(store, b"video"), add_job(store, None)
    states = [job.state for job in map(store.get, (done, failed)) if job is not None]
    assert states == [DONE, FAILED]
    assert [path.name for path in store.job_folder(done).iterdir()] == [VIDEO]
    assert store.remove_expired() == 0
    time.sleep(0.6)
    assert (store.get(done), store.get(failed)) == (None, None)
    assert store.remove_expired() == 2
    assert list((tmp_path / "data" / "jobs").iterdir()) == []
    store.close()


def test_a_new_process_finds_what_was_finished_and_mends_the_rest(tmp_path) -> None:
    store = JobStore(tmp_path, keep_s=60)
    done, lost = add_job(store, b"video"), add_job(store, b"video")
    (store.job_folder(lost) / VIDEO).unlink()
    with store.new_folder() as unfinished:
        store.add(unfinished, {})
    store.start(unfinished)
    with store.new_folder() as abandoned:
        pass
    assert not store.job_folder(abandoned).exists()
    (tmp_path / "jobs" / ("s" * 22)).mkdir()
    (tmp_path / "live" / ("s" * 22)).mkdir()
    with pytest.raises(InputError, match="another service works in"):
        JobStore(tmp_path, keep_s=60)
    store.close()
    store = JobStore(tmp_path, keep_s=60)
    jobs = [store.get(job_id) for job_id in (done, lost, unfinished, "../" + done, "x" * 22)]
    assert [None if job is None else job.state for job in jobs] == [DONE, None, FAILED, None, None]
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {done, unfinished}
    assert list(store.live_folder.iterdir()) == []
    store.close()
    assert all((path.stat().st_mode & 0o077) == 0 for path in (tmp_path, tmp_path / "jobs" / done))


def test_a_folder_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot work in"):
        JobStore(tmp_path / "file", keep_s=60)


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modes and contents."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("kind", ["project", "one file", "names of ours", "table of another"])
def test_a_folder_that_is_not_the_services_own_is_left_as_it_is(tmp_path, kind) -> None:
    folder = tmp_path / "foreign"
    (folder / "jobs" / "2024").mkdir(parents=True)
    (folder / "jobs" / "2024" / "report.txt").write_text("years of work")
    folder.chmod(0o755)
    if kind == "project":
        (folder / "README").write_text("mine")
    elif kind == "one file":
        shutil.rmtree(folder / "jobs")
        (folder / "lock").write_text("")
    elif kind == "names of ours":
        (folder / "jobs.sqlite").write_text("no table at all")
    else:
        shutil.rmtree(folder / "jobs")
        with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite")) as database, database:
            database.execute("CREATE TABLE jobs (company TEXT, salary REAL)")
    before = everything(folder)
    with pytest.raises(InputError, match="holds other files; expected a new or empty folder"):
        JobStore(folder, keep_s=60)
    assert everything(folder) == before


def test_what_others_put_into_the_services_folder_stays(tmp_path) -> None:
    JobStore(tmp_path, keep_s=60).close()
    for place in (tmp_path / "notes", tmp_path / "jobs" / "2024"):
        place.mkdir()
        (place / "report.txt").write_text("years of work")
    JobStore(tmp_path, keep_s=60).close()
    assert (tmp_path / "jobs" / "2024" / "report.txt").read_text() == "years of work"
    assert (tmp_path / "notes" / "report.txt").exists()


def test_a_folder_from_before_there_was_a_marker_is_taken_on(tmp_path) -> None:
    with contextlib.closing(JobStore(tmp_path, keep_s=60)) as store:
        done = add_job(store, b"video")
    (tmp_path / MARKER_NAME).unlink()
    (tmp_path / "live").rmdir()
    with contextlib.closing(JobStore(tmp_path, keep_s=60)) as store:
        job = store.get(done)
        assert job is not None
        assert job.state == DONE
    assert (tmp_path / MARKER_NAME).is_file()


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_folders_are_private_whatever_the_umask(tmp_path, mask) -> None:
    with umask(mask), contextlib.closing(JobStore(tmp_path / "data", keep_s=60)) as store:
        add_job(store, b"video")
        folders = [path for path in [store.folder, *store.folder.rglob("*")] if path.is_dir()]
        assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_what_a_full_disk_keeps_from_being_written_is_written_later(tmp_path) -> None:
    """SQLite itself is told that there is no room for another page."""
    with contextlib.closing(JobStore(tmp_path, keep_s=60)) as store:
        with store.new_folder() as job_id:
            store.add(job_id, {})
        (store.job_folder(job_id) / VIDEO).write_bytes(b"video")
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        store.finish(job_id, {"frames": 1, "note": "x" * 20_000})
        assert "full" in store.fault
        job = store.get(job_id)
        assert job is not None
        assert (job.state, job.result and job.result["frames"]) == (DONE, 1)
        with pytest.raises(Problem) as told, store.new_folder() as lost:
            store.add(lost, {"note": "x" * 20_000})
        assert told.value.status == 507
        assert not store.job_folder(lost).exists()
        with pytest.raises(Problem):
            store.settle()
        store._database.execute("PRAGMA max_page_count = 1000000")
        store.settle()
        assert store.fault == ""
    with contextlib.closing(JobStore(tmp_path, keep_s=60)) as store:
        job = store.get(job_id)
        assert job is not None
        assert job.state == DONE


def test_a_table_that_is_locked_for_long_is_told_and_waited_for(tmp_path) -> None:
    with contextlib.closing(JobStore(tmp_path, keep_s=60)) as store:
        store._database.execute("PRAGMA busy_timeout = 50")
        with store.new_folder() as job_id:
            store.add(job_id, {})
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            store.finish(job_id, Problem(500, "lost"))
            assert "locked" in store.fault
            with pytest.raises(Problem) as told:
                store.remove(job_id)
            assert (told.value.status, told.value.headers["Retry-After"]) == (503, "5")
            job = store.get(job_id)
            assert job is not None
            assert job.state in (FAILED, QUEUED)
        store.settle()
        assert store.fault == ""


def test_a_table_that_is_none_is_told(tmp_path) -> None:
    JobStore(tmp_path, keep_s=60).close()
    (tmp_path / "jobs.sqlite").write_bytes(b"\1" * 5000)
    with pytest.raises(OutputError, match=r"cannot work in .*: file is not a database"):
        JobStore(tmp_path, keep_s=60)
