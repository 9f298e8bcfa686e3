"""A folder that is written to: by one process at a time, and what a full disk leaves is whole."""

import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import measuring, storage
from slt_jax.problem import Problem
from slt_jax.spectroscopy import Subject, llc_probe
from slt_jax.storage.locks import HeldError, held
from slt_jax.watching import run_watch
from slt_jax.workflow import run_scan


def loss_fn(params, x):
    return 0.5 * (params["w"] * x) ** 2


SUBJECT = Subject(Problem(loss_fn, {"w": jnp.float32(0.0)}, jnp.linspace(-1.0, 1.0, 16)))
PROBES = {"llc": llc_probe(nbeta=100.0, draws=50, burnin=20, chains=2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "checkpoints"
    storage.save_checkpoints(path, {step: {"w": np.float32(1e-4 * step)} for step in (1, 2, 5)})
    return path


@pytest.fixture
def quick(monkeypatch):
    """A page without pictures: they take longer than all else here."""

    def page(folder):
        (folder / "report.html").write_text("page")
        return folder / "report.html"

    monkeypatch.setattr(measuring, "write_report", page)


def scanned(folder, out, reporter=lambda *stage: None):
    checkpoints = storage.checkpoints_in(folder, SUBJECT.problem.params)
    return run_scan(SUBJECT, checkpoints, str(folder), out, 0, PROBES, None, None, reporter)


def snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def leftovers(out):
    return [path for path in out.rglob(".*") if path.name not in (".zgroup", ".zattrs", ".zarray", ".zmetadata")]


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    scanned(folder, out)
    return {name: content for name, content in snapshot(out).items() if "zarr" in name}


def finished_as(out, undisturbed):
    return {name: content for name, content in snapshot(out).items() if "zarr" in name} == undisturbed


# --- locks

#: Holds a lock until it is killed, or its standard input ends.
HOLDER = """
import os, sys
from pathlib import Path
from slt_jax.storage.locks import held
with held(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_holds(path):
    """The pid of another process that holds a lock."""
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], env=environment, **pipes) as process:
        assert process.stdout.readline() == f"{process.pid}\n"
        yield process
        process.communicate()


def test_a_lock_names_its_holder_and_ends_with_it_however_it_dies(tmp_path):
    path = tmp_path / ".lock"
    with another_holds(path) as process:
        with pytest.raises(HeldError, match=f"^process {process.pid} on "), held(path):
            pass
        process.kill()
    assert path.exists()
    with held(path):
        assert path.read_text() == storage.holder()
    assert not path.exists()


def test_of_many_threads_one_at_a_time_holds_a_lock(tmp_path):
    """Each removes the file of the lock: one that opened it before is not fooled."""
    inside, most, waits = [], [], []

    def work():
        for _ in range(20):
            with held(tmp_path / ".lock", waits.append):
                inside.append(0)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert set(waits) <= {storage.holder(), "another process"}


def test_a_second_scan_of_a_folder_is_refused_by_name_and_a_watch_too(folder, tmp_path, quick):
    out = tmp_path / "out"
    refused = []

    def meanwhile(stage, done, total, detail=""):
        if stage == "Measuring" and not refused:
            before = snapshot(out)
            for second in (
                lambda: scanned(folder, out),
                lambda: run_watch(SUBJECT, folder, out, 0, PROBES, None, None, lambda *stage: None),
            ):
                with pytest.raises(storage.FolderError) as told:
                    second()
                refused.append(str(told.value))
            assert snapshot(out) == before

    outcome = scanned(folder, out, meanwhile)
    by = f"{out} is being written to by {storage.holder()}; wait for its end, or choose another folder."
    assert refused == [f"--out: {by}"] * 2
    assert outcome.readings == 3
    assert leftovers(out) == []
    # it is free again
    assert scanned(folder, out).readings == 3


def test_a_checkpoint_that_another_is_at_is_waited_for(folder, tmp_path, quick):
    out, told = tmp_path / "out", []
    scanned(folder, out)
    with another_holds(out / "cells" / ".2.lock") as process:

        def reporter(stage, done, total, detail=""):
            told.append(detail)
            if "waiting" in detail:
                process.kill()

        scanned(folder, out, reporter)
    assert [detail for detail in told if f"waiting for process {process.pid} on " in detail]


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(folder, tmp_path, quick):
    out = tmp_path / "out"
    scanned(folder, out)
    half, own = out / f".{'0a' * 16}.zarr", out / ".notes"
    half.mkdir()
    (half / "part").touch()
    own.touch()
    scanned(folder, out)
    assert leftovers(out) == [own]


# --- full disks


def check_refusal(told, words, out):
    """One sentence, and what is in the folder is whole."""
    assert words in told
    assert "what is finished is kept" in told
    assert "\n" not in told
    assert leftovers(out) == []
    if (out / "study.json").exists():
        storage.read_study(out)
    storage.read_readings(out)
    storage.read_history(out)


FULL = {errno.ENOSPC: "no space is left on /", errno.EDQUOT: "your quota is used up on /"}


def test_a_disk_that_is_full_at_any_write_leaves_whole_files_and_is_gone_on_with(
    folder, tmp_path, undisturbed, quick, monkeypatch
):
    """For every file and every store that a scan moves to its place: the disk is full just then, and has room later."""
    replace, refused = os.replace, []
    for number in itertools.cycle(FULL):
        out, moves = tmp_path / f"out{len(refused)}", []

        def limited(source, target, out=out, moves=moves, number=number, **more):
            # parts of a store that is not in its place yet are not counted
            if Path(target).parent in (out, out / "cells"):
                moves.append(Path(target).name)
                if len(moves) > len(refused):
                    raise OSError(number, os.strerror(number), str(target))
            return replace(source, target, **more)

        monkeypatch.setattr(os, "replace", limited)
        try:
            scanned(folder, out)
            break
        except storage.FolderError as error:
            check_refusal(str(error), FULL[number], out)
        monkeypatch.setattr(os, "replace", replace)
        scanned(folder, out)
        assert finished_as(out, undisturbed)
        refused.append(moves[len(refused)])
    # the claim, each reading, both stores, the account
    assert [Path(name).suffix for name in refused] == [".json", ".npz", ".npz", ".npz", ".zarr", ".zarr", ".json"]


def test_a_file_that_may_not_grow_is_a_full_disk(folder, tmp_path, undisturbed):
    """Really written, and cut off by the kernel: the page is larger than what is allowed, the readings are not."""
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (100, 2500, 30_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(storage.FolderError) as told:
                scanned(folder, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        check_refusal(str(told.value), "a file would be larger than this process may write", out)
    assert storage.read_readings(out)["/llc"]["measured"].values.all()
    assert not (out / "report.html").exists()
    scanned(folder, out)
    assert finished_as(out, undisturbed)


@pytest.fixture
def small(tmp_path):
    """A file system of 4 MiB, where one may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_checkpoints_that_a_full_file_system_does_not_take_leave_no_part_behind(small):
    many = {step: {"w": np.arange(100_000, dtype=np.float32) * step} for step in range(20)}
    with pytest.raises(storage.FolderError, match="no space is left on"), storage.claimed(small / "out", {"seed": 0}):
        storage.save_checkpoints(small / "out" / "checkpoints", many)
    assert list((small / "out" / "checkpoints").iterdir()) == []


def test_a_small_file_system_that_is_full_is_named_and_gone_on_with(folder, small, undisturbed):
    out, filler = small / "out", small / "filler"
    refused = 0
    for free in (0, 8, 24, 64, 256, 1024, 2048):
        filler.write_bytes(b"")
        filler.write_bytes(bytes(max(0, shutil.disk_usage(small).free - free * 1024)))
        try:
            scanned(folder, out)
            break
        except storage.FolderError as error:
            check_refusal(str(error), f"no space is left on {small} ", out)
            refused += 1
    assert refused >= 3
    assert finished_as(out, undisturbed)
