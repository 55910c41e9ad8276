"""A script for test_killed_runs.py: FOLDER POINTS.

Trains in FOLDER/whole. Then, for each of POINTS moments spread over all that a run does in its
folder (every file opened, renamed or removed), in FOLDER/<number>: trains until a kill -9 at that
moment, keeps what it left in FOLDER/<number>/killed, and resumes in FOLDER/<number>/run.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from robust_training.checkpoint import LAST
from tests.test_trainer import train

WRITES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")


def in_a_child(call):
    """Its exit status: negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        call()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(folder):
    """As train.py does, which resumes where there is a checkpoint."""
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
        shutil.copytree(place / "run", place / "killed", dirs_exist_ok=True)
        assert in_a_child(lambda p=place: run(p / "run")) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
