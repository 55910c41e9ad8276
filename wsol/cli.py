"""What the command-line tools share: messages people can act on."""

import difflib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import NoReturn

import jsonargparse
import torch

from robust_training.attack import PGD
from robust_training.cpu import prepare_cpu
from robust_training.curvature import FiniteDifference
from robust_training.front import LogGradient
from robust_training.maps import Attribution
from robust_training.objectives import Objective, Part
from robust_training.schedule import Schedule
from wsol.data.loaders import DataConfig
from wsol.detectors import Detector
from wsol.detectors.training import Training

# jsonargparse's and argparse's words for a name that they do not know
_UNKNOWN = re.compile(
    r"unrecognized arguments: --([\w.]+)|(?:Option|Key) '([\w.]+)' is not"
    r"|does not accept (?:nested )?(?:option|key) '([\w.]+)'|import path string: ([\w.]+)"
)
_CLASSES = (
    *(Objective, Part, Attribution, Schedule, PGD, FiniteDifference, LogGradient, DataConfig),
    *(Detector, Training),
)


class Parser(jsonargparse.ArgumentParser):
    """A parser whose mistakes cost one line, with the nearest names where a name is unknown."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split())
        found = _UNKNOWN.search(line)
        if found:
            name = next(filter(None, found.groups())).split(".")[-1]
            near = difflib.get_close_matches(name, self._names(), n=3)
            line += f"; did you mean {', '.join(near)}?" if near else ""
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2)

    def _names(self) -> list[str]:
        names = {action.dest.split(".")[-1] for action in self._actions}
        for base in _CLASSES:
            for kind in _kinds(base):
                names.add(kind.__name__)
                names |= {field.name for field in fields(kind)} if is_dataclass(kind) else set()
        return sorted(names)


def _kinds(base: type) -> list[type]:
    return [base, *(kind for below in base.__subclasses__() for kind in _kinds(below))]


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit: 0 or what it returns, 2 after one line about a user's mistake.

    Set WSOL_TRACEBACK=1 to see where an error came from.
    """
    try:
        status = main() or 0
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("WSOL_TRACEBACK"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = 130
    sys.exit(status)


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    if "Original Traceback" in text:  # a loader process wraps its error in the whole traceback
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def find_device(name: str) -> torch.device:
    """The device called `name`, made ready; ValueError where it is not there."""
    try:
        device = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not there: {_one_line(error)}") from error
    if device.type == "cpu":
        prepare_cpu()
    return device
