"""The commands, and how the user started this one: as `wsol train` or `python tools/train.py`."""

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """A command of `wsol`: its purpose, for the list of commands, and its script in tools/, if it
    has one."""

    purpose: str
    script: str | None = None


COMMANDS = {
    "quickstart": Command("train, score and localize on toy data in minutes", "quickstart.py"),
    "demo": Command("draw boxes on real photographs that packages contain", "demo.py"),
    "prepare": Command("draw, download or check a data set", "prepare_data.py"),
    "train": Command("train a classifier from image labels", "train.py"),
    "evaluate": Command("score the boxes and maps of runs or of other programs", "evaluate.py"),
    "localize": Command("find boxes in images", "localize.py"),
    "export": Command("write a run as ONNX and PyTorch programs, and its card", "export.py"),
    "detector": Command("train detectors on a run's boxes", "train_detector.py"),
    "compare": Command("train and compare several configurations", "compare.py"),
    "robustness": Command("score runs as evaluate does, and attack them"),
    "interpret": Command("retrain without the pixels that maps rank high", "interpret.py"),
    "benchmark": Command("measure the speed of this machine", "benchmark.py"),
}


def program() -> str:
    """The name of the running command for its help: `wsol train` or `train.py`."""
    script = _script()
    return script.name if script else " ".join(["wsol", *sys.argv[1:2]])


def typed() -> str:
    """The running command with all its arguments, as the user can type it again."""
    script = _script()
    return shlex.join([*(["python", str(script)] if script else ["wsol"]), *sys.argv[1:]])


def other(name: str, *arguments: object) -> str:
    """Another command with its arguments, to be typed in the same way as the running one."""
    script = _script()
    words = ["python", str(_beside(script, name))] if script else ["wsol", name]
    return shlex.join([*words, *map(str, arguments)])


def process_words(name: str, arguments: Iterable[object], *, alike: bool = False) -> list[str]:
    """The words that run another command in a process of its own. With `alike` it is started as the
    user started this one, so that its messages look alike."""
    script = _script() if alike else None
    words = [str(_beside(script, name))] if script else ["-P", "-m", "wsol.cli.commands", name]
    return [sys.executable, *words, *map(str, arguments)]


def _script() -> Path | None:
    """The script in tools/ that was started; None for `wsol`."""
    started = Path(sys.argv[0])
    return started if started.name in {each.script for each in COMMANDS.values()} else None


def _beside(script: Path, name: str) -> Path:
    return script.with_name(COMMANDS[name].script or "")
