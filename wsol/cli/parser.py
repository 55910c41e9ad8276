"""Functions that all command-line tools use: parse the options, run the command, report errors."""

import argparse
import errno
import inspect
import os
import pydoc
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn

import jsonargparse
import yaml

from wsol.cli.private_api import declared_type, parser_actions
from wsol.cli.program import program
from wsol.data.names import nearest, suggestion
from wsol.data.text_files import bounded

DEVICE = "auto"
METHODS = (
    "heatmaps by name, such as cam, smoothgrad or refined_gradient, or a class path; an unknown "
    "name lists all"
)
DEVICES = "number of devices, each with its own process; default: 1, or torchrun's number"
# jsonargparse's and argparse's words for a name that they do not know
_UNKNOWN_OPTION = re.compile(
    r"unrecognized arguments: --([\w.]+)|(?:Option|Key) '([\w.]+)' is not"
    r"|does not accept (?:nested )?(?:option|key) '([\w.]+)'"
)
_UNKNOWN_CLASS = re.compile(r'(key "(?P<option>[\w.]+)".*)?import path string: (?P<name>[\w.]+)')
# a mode of our own: other parsers in the process keep jsonargparse's way of reading YAML
_BOUNDED_YAML = "wsol_bounded_yaml"


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, so that it reads the same text from a file that its dumper wrote to it.

    jsonargparse's loader also takes 1e-3 for a number. Where a number is wanted, jsonargparse makes
    one from the text. Dates stay text.
    """

    yaml_implicit_resolvers: typing.ClassVar = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Parser(jsonargparse.ArgumentParser):
    """A parser that reports an error in one line and suggests known names for an unknown one.

    A `class_path` must name a class of the declared type: jsonargparse would also call a function
    in its place, for example `os.system` as the optimizer. A YAML file may not stand for more
    values than `wsol.data.text_files.bounded` allows.
    """

    _file: Any = None  # the config file that is being read

    def __init__(self, *arguments: Any, parser_mode: str = _BOUNDED_YAML, **options: Any) -> None:
        errors = (yaml.YAMLError, RecursionError)
        jsonargparse.set_loader(
            _BOUNDED_YAML, lambda text: bounded(yaml.load(text, _Loader)), errors
        )
        options = {"prog": program(), "allow_abbrev": False} | options
        super().__init__(*arguments, parser_mode=parser_mode, **options)

    def add_argument(self, *arguments: Any, **options: Any) -> argparse.Action:
        """Adds an option. jsonargparse makes its groups and its parsers of classes do the same."""
        if _is_text_or_none(options.get("type") or declared_type(options.get("action"))):
            options.pop("action", None)
            options["type"] = str
        return super().add_argument(*arguments, **options)

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
        except TypeError as error:  # from a setting whose type is not declared
            raise ValueError(f"these settings do not fit together: {error}") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split())
        if "Subclasses are disabled for DataConfig" in line:
            # jsonargparse takes a mapping with class_path alone for the class of the whole mapping
            line = "data: give root beside class_path"
        if "Expected a <class 'str'>. Got" in line:
            line += "; in a file this text needs quotes"
        if found := _UNKNOWN_OPTION.search(line):
            name = found[found.lastindex].split(".")[-1]
            options = {action.dest.split(".")[-1] for action in parser_actions(self)}
            near = nearest(name, sorted(options - {name}))
            line += f"; did you mean {', '.join(near)}?" if near else ""
        elif found := _UNKNOWN_CLASS.search(line):
            name = found["name"].split(".")[-1]
            line += suggestion(name, sorted(self._class_names(found["option"]) - {name}))
        line = line if self._file is None else f"{self._file}: {line}"
        print(f"error: {printable(line)}", file=sys.stderr)
        raise SystemExit(2)

    def _class_names(self, option: str | None) -> set[str]:
        """Names of the classes that an option takes, or all options if it lies within another."""
        types = {action.dest: declared_type(action) for action in parser_actions(self)}
        declared = [types[option]] if option in types else types.values()
        kinds = {kind for each in declared for kind in classes_in(each)}
        return {kind.__name__ for kind in kinds if not inspect.isabstract(kind)}


def _is_text_or_none(declared: Any) -> bool:
    """Whether a type is `str | None`, perhaps with a path: text, or nothing as the default.

    With the type `str`, None is still the default, and `null` in a file is None. But "null" on
    the command line, or in quotes in a file, is text.
    """
    if typing.get_origin(declared) not in (typing.Union, UnionType):
        return False
    kinds = set(typing.get_args(declared))
    return str in kinds and kinds <= {str, Path, type(None)}


def classes_in(declared: Any) -> Iterator[type]:
    """Classes in a type such as `A | None` or `Callable[..., A]`, and all their subclasses."""
    if isinstance(declared, type) and declared.__module__ != "builtins":
        yield declared
        for kind in declared.__subclasses__():
            yield from classes_in(kind)
    for part in typing.get_args(declared):
        yield from classes_in(part)


def _class_paths(settings: Any) -> Iterator[str]:
    """All values of `class_path` in settings, a tree of mappings and lists."""
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


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Calls `main` with the arguments of the command line and exits the process.

    The exit status is the result of `main` or 0; 2 after a user's mistake, which is printed in one
    line; 128 + the signal's number if a signal stopped it. Set WSOL_TRACEBACK=1 for a traceback.
    """
    if int(os.environ.get("LOCAL_RANK", 0)):  # the first of several processes warns for all
        warnings.simplefilter("ignore")
    warnings.formatwarning = lambda message, *_, **__: f"note: {one_line(message)}\n"
    try:
        status = main(sys.argv[1:]) or 0
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("WSOL_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        status = getattr(stop, "status", 130)  # that of robust_training's Stopped
    sys.exit(status)


def one_line(error: Exception | Warning) -> str:
    """An exception's message in one printable line."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        text += "; `ulimit -n 1024` before the command allows more"
    if "Original Traceback" in text:  # a loader process wraps its error in the whole traceback
        text = text.splitlines()[-1].partition(": ")[2]
    return printable(" ".join(text.split()))


def split_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments before a lone `--`, and arguments after it, which are for another script."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:split], arguments[split + 1 :]


def printable(text: str) -> str:
    """The text with its control characters escaped: a file's name must not control the terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def output_folder(name: str | os.PathLike) -> Path:
    """The folder `name`, which need not exist; ValueError if no results can be written there.

    Called before a long computation, so that its results can be written at the end.
    """
    existing = next(each for each in (Path(name), *Path(name).parents) if each.exists())
    if not existing.is_dir():
        raise ValueError(f"the output {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"no file can be written in {existing}: choose another output folder")
    return Path(name)
