"""Readers of text files that may be damaged: lines, numbers, JSON, YAML."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MOST_VALUES = 100_000  # in a YAML file


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """Yields the number (from 1) and the text of each line that is not blank, without outer blanks.

    The file is UTF-8 with or without a byte-order mark. Lines end with LF, CR or both. Form feeds
    and Unicode line separators do not end a line, since they may be part of a name. Raises
    ValueError if the file cannot be read, is not UTF-8, or contains a NUL. The message names the
    file and the line."""
    path = Path(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not a UTF-8 text file: line {number}: {error.reason}"
        ) from error
    for number, line in enumerate(
        text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1
    ):
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: there is a NUL in it; the file is damaged")
        if line.strip():
            yield number, line.strip()


def read_rows(path: str | os.PathLike, *columns: int) -> list[tuple[int, list[str]]]:
    """Reads the number and the comma-separated values of each line that is not blank. Raises
    ValueError, which names the file and the line, if their number is not one of `columns`, or the
    first value is empty; or see `read_lines`."""
    rows = [(row, [field.strip() for field in line.split(",")]) for row, line in read_lines(path)]
    for row, fields in rows:
        if len(fields) not in columns or not fields[0]:
            expected = " or ".join(map(str, sorted(columns)))
            raise ValueError(f"{path}, line {row}: expected {expected} comma-separated values")
    return rows


def whole(text: str) -> int:
    """Parses a whole number below 2**53, which a float holds exactly. Raises ValueError."""
    value = int(text)
    if "_" in text or abs(value) >= 2**53:  # Python reads 1_0 as 10; in data it is an error
        raise ValueError(f"{text:.40} is not a whole number below 2**53")
    return value


def number(text: str) -> float:
    """Parses a finite number. Raises ValueError."""
    value = float(text)
    if "_" in text or not math.isfinite(value):
        raise ValueError(f"{text:.40} is not a finite number")
    return value


def read_json(path: str | os.PathLike) -> Any:
    """Parses a JSON file. Raises ValueError with the file's name if that is not possible."""
    return _parsed(path, "JSON", json.loads)


def read_yaml(path: str | os.PathLike) -> Any:
    """Parses a YAML file of plain values. Raises ValueError if the file is not YAML, or has a tag
    that names a Python object."""
    return _parsed(path, "YAML", lambda text: bounded(yaml.safe_load(text)))


def bounded(tree: Any) -> Any:
    """Returns a tree from YAML. Raises ValueError if its aliases expand to over `MOST_VALUES`.

    With aliases, a file of a few lines can stand for billions of values, or contain itself.
    """
    count, waiting = 0, [tree]
    while waiting:
        node = waiting.pop()
        below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        count += len(below)
        if count > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
        waiting.extend(below)
    return tree


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested settings to dotted names. An empty mapping counts as a value."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _parsed(path: str | os.PathLike, kind: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is not {kind}: {' '.join(str(error).split())}") from error


@contextmanager
def naming(place: str, line: str | None = None) -> Iterator[None]:
    """Turns an error inside, such as a missing key, into a ValueError that begins with `place` and
    ends with the beginning of `line`, the line of a file that is read."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{place}: no {error}") from error
    except (ValueError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        end = "" if line is None else f": {line[:80]!r}"
        raise ValueError(f"{place}: {error}{end}") from error


def first_cause(error: BaseException) -> str:
    """The text of an error's first cause, or the type of that cause if it has no text."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__
