"""A run's folder is locked for other processes, and keeps its settings."""

import os
import signal
import time

import pytest

from tests.helpers.commands import ROOT, train
from wsol.cli.run_folder import changed_settings, lock_folder, record_settings


def test_a_second_process_is_refused_and_a_killed_one_forgotten(tmp_path):
    """Also while a loader process that it forked lives on."""
    folder, ready = tmp_path / "new" / "run", tmp_path / "ready"
    holder = os.fork()
    if holder == 0:
        with lock_folder(folder):
            loader = os.fork()
            if loader > 0:
                (tmp_path / "pid").write_text(str(loader))
                ready.touch()
            time.sleep(60)
            os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    with pytest.raises(ValueError, match="another process is training in"), lock_folder(folder):
        pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with lock_folder(folder):
        assert folder.is_dir()
    assert not list(folder.iterdir())
    with lock_folder(tmp_path / "made" / "run"):
        pass
    assert not (tmp_path / "made").exists()  # nothing was put there
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_command_is_refused_where_another_trains(run, toy):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with lock_folder(run):
        for more in ((), ("--resume",)):
            status, _, error = train("--data.root", toy, "--output", run, *more)
            assert (status, error[:49]) == (
                2,
                "error: another process is training in " + str(run)[:11],
            )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_what_makes_another_run_is_named():
    before = {"seed": 0, "data": {"root": "a", "num_workers": 2}, "objective": {"class_path": "A"}}
    now = {"seed": 1, "data": {"root": "a", "num_workers": 8}, "new": 3}
    now["objective"] = {"class_path": "B", "init_args": {"weight": 2}}
    assert changed_settings(before, now, {"new": 3}) == [
        "seed: 0 -> 1",
        "objective.class_path: A -> B",
    ]
    assert changed_settings(before, before | {"new": 4}, {"new": 3}) == ["new: 3 -> 4"]
    assert changed_settings(before | {"old": 1}, before, {}) == ["old: 1 -> not set"]
    assert changed_settings(before, before | {"epochs": 9, "fabric": {"devices": 4}}, {}) == []


def test_a_class_that_moved_between_versions_is_the_same():
    def schedule(path):
        return {"schedule": {"class_path": path, "init_args": {"final": 0.0}}}

    now = schedule("robust_training.training.Cosine")
    assert changed_settings(schedule("robust_training.schedule.Cosine"), now, {}) == []
    assert changed_settings(schedule("mine.Cosine"), now, {}) == [
        "schedule.class_path: mine.Cosine -> Cosine"
    ]


def test_results_of_other_settings_or_of_an_earlier_version_are_named(tmp_path):
    record_settings(tmp_path, {"a": 1}, results="seed*")
    record_settings(tmp_path, {"a": 2}, results="seed*")  # nothing is trained yet
    (tmp_path / "seed0").mkdir()
    record_settings(tmp_path, {"a": 2, "new": None}, results="seed*")
    with pytest.raises(ValueError, match="another a 2; choose another --output"):
        record_settings(tmp_path, {"a": 1}, results="seed*")
    with pytest.raises(ValueError, match="earlier version, which did not record b"):
        record_settings(tmp_path, {"a": 2, "b": 3}, results="seed*")


def test_resuming_another_run_is_refused(run, toy, tmp_path):
    before = (run / "config.yaml").read_text()
    own = ("--data.root", toy, "--output", run, "--resume")
    status, _, error = train(*own, "--data.num_workers", 1, "--seed", 4, "--clip_norm", "null")
    assert (status, (run / "config.yaml").read_text()) == (2, before)
    assert "seed: 0 -> 4; clip_norm: 1.0 -> None (--allow_changes" in error
    status, _, error = train(*own, "--save_minutes", 3)
    assert status == 0, error
    assert "save_minutes: 3" in (run / "config.yaml").read_text()
    status, _, error = train(*own, "--seed", 4, "--allow_changes")
    assert status == 0, error
    (run / "config.yaml").write_text(before)


def test_a_run_without_a_checkpoint_begins_anew(toy, tmp_path):
    config = ROOT / "configs" / "methods" / "standard.yaml"
    own = ("--config", config, "--data.root", toy, "--output", tmp_path / "run")
    for more in ((), (), ("--resume",)):
        status, text, error = train(*own, "--model.name", "test_resnet", *more)
        assert status == 0, error
        assert ("starts from its beginning" in text) == bool(more)
        (tmp_path / "run" / "last.ckpt").rename(tmp_path / "run" / ".last.ckpt.partial")
