"""What the command-line tools share: messages people can act on, settings that run nothing."""

import difflib
import os
import pydoc
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import torch
import yaml

from robust_training.attacks.map_attack import Goal, MapAttack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import Explanation
from robust_training.autograd.curvature import FiniteDifference
from robust_training.models.log_gradient import LogGradient
from robust_training.objectives import Objective, Part
from robust_training.training.cpu import prepare_cpu
from robust_training.training.interrupts import Stopped
from robust_training.training.schedule import Schedule
from wsol.data.loaders import DataConfig
from wsol.data.text_files import bounded
from wsol.detectors import Detector
from wsol.detectors.training import Training
from wsol.robustness.adversarial_accuracy import AccuracyCurve
from wsol.robustness.under_attack import RobustnessConfig

# jsonargparse's and argparse's words for a name that they do not know
_UNKNOWN = re.compile(
    r"unrecognized arguments: --([\w.]+)|(?:Option|Key) '([\w.]+)' is not"
    r"|does not accept (?:nested )?(?:option|key) '([\w.]+)'|import path string: ([\w.]+)"
)
_load = jsonargparse.get_loader("yaml")
jsonargparse.set_loader("yaml", lambda text: bounded(_load(text)), (yaml.YAMLError, RecursionError))
_CLASSES = (
    *(Objective, Part, Explanation, Schedule, PGD, FiniteDifference, LogGradient, DataConfig),
    *(Goal, MapAttack, RobustnessConfig, AccuracyCurve),
    *(Detector, Training),
)


class Parser(jsonargparse.ArgumentParser):
    """A parser whose mistakes cost one line, with the nearest names where a name is unknown.

    A `class_path` names a class of the declared type. jsonargparse would also call any function in
    its place, `os.system` in that of an optimizer.
    """

    _file: Any = None  # the config file that is being read

    def parse_path(self, path: Any, *arguments: Any, **options: Any) -> jsonargparse.Namespace:
        self._file = path
        try:
            return super().parse_path(path, *arguments, **options)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        finally:
            self._file = None

    def instantiate(self, cfg: Any, *arguments: Any, **options: Any) -> jsonargparse.Namespace:
        for path in _class_paths(cfg):
            if not isinstance(pydoc.locate(path), type):
                raise ValueError(f"class_path {path} names no class")
        try:
            return super().instantiate(cfg, *arguments, **options)
        except TypeError as error:  # of a setting that no type was declared for
            raise ValueError(f"these settings do not fit together: {error}") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split())
        found = _UNKNOWN.search(line)
        if found:
            name = next(filter(None, found.groups())).split(".")[-1]
            names = [each for each in self._names() if each != name]  # it is another class's
            near = difflib.get_close_matches(name, names, n=3)
            line += f"; did you mean {', '.join(near)}?" if near else ""
        line = line if self._file is None else f"{self._file}: {line}"
        print(f"error: {printable(line)}", file=sys.stderr)
        raise SystemExit(2)

    def _names(self) -> list[str]:
        names = {action.dest.split(".")[-1] for action in self._actions}
        for base in _CLASSES:
            for kind in _kinds(base):
                names.add(kind.__name__)
                names |= {field.name for field in fields(kind)} if is_dataclass(kind) else set()
        return sorted(names)


def _class_paths(settings: Any) -> Iterator[str]:
    """All that settings, a tree of mappings and lists, name under `class_path`."""
    if isinstance(settings, jsonargparse.Namespace):
        settings = vars(settings)
    if isinstance(settings, Mapping):
        if isinstance(settings.get("class_path"), str):
            yield settings["class_path"]
        settings = settings.values()
    elif not isinstance(settings, list | tuple):
        return
    for each in settings:
        yield from _class_paths(each)


def _kinds(base: type) -> list[type]:
    return [base, *(kind for below in base.__subclasses__() for kind in _kinds(below))]


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit: 0 or what it returns, 2 after one line about a user's mistake, 128 +
    the signal's number where one stopped it.

    Set WSOL_TRACEBACK=1 to see where an error came from.
    """
    warnings.formatwarning = lambda message, *_, **__: f"note: {_one_line(message)}\n"
    try:
        status = main() or 0
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("WSOL_TRACEBACK"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        status = stop.status if isinstance(stop, Stopped) else 130
    sys.exit(status)


def _one_line(error: Exception | Warning) -> str:
    text = str(error).strip()
    if "Original Traceback" in text:  # a loader process wraps its error in the whole traceback
        text = text.splitlines()[-1].partition(": ")[2]
    return printable(" ".join(text.split()))


def split_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before a lone `--`, and after it: another script's options."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:split], arguments[split + 1 :]


def printable(text: str) -> str:
    """The same with control characters spelled out: a file's name must not steer the terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def output_folder(place: str) -> Path:
    """ValueError where a folder cannot be made, before anything is computed for it."""
    folder = Path(place)
    for each in (folder, *folder.parents):
        if each.exists() and not each.is_dir():
            raise ValueError(f"--output {each} is a file, not a folder")
    return folder


def find_device(name: str) -> torch.device:
    """The device called `name`, made ready; ValueError where it is not there."""
    try:
        device = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not there: {_one_line(error)}") from error
    if device.type == "cpu":
        prepare_cpu()
    return device
