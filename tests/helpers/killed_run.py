"""A script for test_killed_runs.py: FOLDER POINTS [DATA].

Trains in FOLDER/whole. Then chooses POINTS moments among all file operations of a run in its folder
(open, rename, remove). For each of them, in FOLDER/<number>: trains until a kill -9 at that moment,
copies the folder to FOLDER/<number>/killed, and resumes in FOLDER/<number>/run.

With DATA, train.py with loader processes is killed at random times. Runs are forked, because a
short one spends most of its time in imports.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import wsol.cli.run_folder  # noqa: F401 (train.py imports it)
from robust_training.training.checkpoint import LAST
from tests.helpers.commands import train as tool_train
from tests.robust_training.training.test_fit import train

WRITES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")


def in_a_child(call, kill_after=None):
    """Call it in a forked process. Returns the exit status, negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        call()
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(folder):
    """Train, or resume where there is a checkpoint, as train.py does."""
    train(folder, epochs=2, save_minutes=0, resume=(folder / LAST).exists())


def run_and_count(folder, kill_at=None):
    moments = []

    def note(event, arguments):
        if event in WRITES and str(folder) in str(arguments[0]):
            moments.append(event)
            if len(moments) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    run(folder)
    (folder.parent / "moments").write_text(str(len(moments)))


def main(folder, points):
    (folder / "whole").mkdir(parents=True)
    assert in_a_child(lambda: run_and_count(folder / "whole" / "run")) == 0
    count = int((folder / "whole" / "moments").read_text())
    for point in range(points):
        place = folder / str(point)
        place.mkdir()
        kill_at = 2 + point * (count - 1) // points  # the first makes the folder
        assert in_a_child(lambda p=place, k=kill_at: run_and_count(p / "run", k)) == -signal.SIGKILL
        shutil.copytree(place / "run", place / "killed")
        assert in_a_child(lambda p=place: run(p / "run")) == 0


def command(data, folder, *more):
    own = ("--config", "configs/toy_pgd.yaml", "--data.root", data, "--output", folder)
    small = ("--model.name", "test_resnet", "--data.batch_size", 4, "--save_minutes", 0)
    return lambda: os._exit(tool_train(*own, *small, "--epochs", 3, *more)[0])


def kill_at_random(folder, points, data):
    draw = random.Random(0)
    begun = time.monotonic()
    assert in_a_child(command(data, folder / "whole" / "run")) == 0
    seconds = time.monotonic() - begun
    for point in range(points):
        place = folder / str(point)
        workers = ("--data.num_workers", 2)
        after = draw.uniform(0, seconds)
        status = in_a_child(command(data, place / "run", *workers), after)
        assert status in (-signal.SIGKILL, 0)
        (place / "run").mkdir(parents=True, exist_ok=True)
        shutil.copytree(place / "run", place / "killed")
        resume = ["--resume"] if (place / "run" / "config.yaml").exists() else []
        assert in_a_child(command(data, place / "run", *workers, *resume)) == 0
        print(f"killed after {after:.1f} of {seconds:.1f} s: status {status}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        kill_at_random(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]))
