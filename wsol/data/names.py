"""Names of images and classes as keys. Programs and systems spell one name in several ways.

Names are compared exactly first. Only a name without an equal one is compared in plain spelling.
"""

import difflib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import TypeVar

_NUMBER = re.compile(r"^\d+\.")  # before the names of CUB's classes
_Meaning = TypeVar("_Meaning")


def plain_path(name: str) -> str:
    """A path with slashes, without `./`, and with composed letters."""
    # PureWindowsPath handles both kinds of slash, and drives
    return "/".join(PureWindowsPath(composed(name)).parts)


def composed(name: str) -> str:
    """A name with each letter and its accent as one character; macOS writes them as two."""
    return unicodedata.normalize("NFC", name)


def titles(names: Sequence[str]) -> list[str]:
    """Class names as people read them: "001.Black_footed_Albatross" -> "Black footed Albatross".

    If two of them become the same, all stay as they are.
    """
    plain = [" ".join(_NUMBER.sub("", name).split("_")).strip() or name for name in names]
    return plain if len(set(plain)) == len(set(names)) else list(names)


def same_names(name: str, names: Sequence[str]) -> list[int]:
    """Returns where `names` has `name`, or without an equal one, where it has the same letters."""
    return [index for index, each in enumerate(names) if each == name] or [
        index for index, each in enumerate(names) if composed(each) == composed(name)
    ]


class KnownNames:
    """Paths of images, and the search for those that another file means by a path.

    Args:
        names: The known paths.
        given: All paths that are searched, if they are known in advance. A known path that is equal
            to one of them is not the meaning of a longer or shorter one.
    """

    def __init__(self, names: Iterable[str], given: Iterable[str] = ()) -> None:
        self._names = frozenset(names)
        self._taken = self._names.intersection(given)

    def candidates(self, name: str) -> list[str]:
        """Returns the known paths that `name` may mean.

        These are the equal path; or else those with the same plain spelling; or else those that
        equal the longest end of `name`; or else those that end with `name`.
        """
        if name in self._names:
            return [name]
        whole, *ends = _ends(name)
        if whole in self._spelled:
            return self._spelled[whole]
        longest = next((end for end in ends if end in self._spelled), None)
        found = self._ending.get(whole, []) if longest is None else self._spelled[longest]
        return [each for each in found if each not in self._taken]

    def find(self, name: str) -> str | None:
        """Returns the known path that `name` means, or None. Raises ValueError if it may mean
        several."""
        return only(name, self.candidates(name))

    @cached_property
    def _spelled(self) -> Mapping[str, list[str]]:
        spelled = defaultdict(list)
        for name in sorted(self._names):
            spelled[plain_path(name)].append(name)
        return dict(spelled)

    @cached_property
    def _ending(self) -> Mapping[str, list[str]]:
        ending = defaultdict(list)
        for name in sorted(self._names):
            for end in _ends(name)[1:]:
                ending[end].append(name)
        return dict(ending)


def only(name: str, candidates: Sequence[_Meaning]) -> _Meaning | None:
    """Returns the only candidate, or None without one. Raises ValueError if there are several."""
    if len(candidates) > 1:
        raise ValueError(f"{name!r:.90} may mean {candidates[0]!r} or {candidates[1]!r}")
    return candidates[0] if candidates else None


def path_below(folder: str | os.PathLike, name: str) -> Path:
    """Joins a folder and a name from a data file. The result must be below the folder.

    If no such file exists, but one with the same plain spelling, that path is returned. Links that
    the user put into the folder are followed. Raises ValueError if the name is empty or absolute on
    any system, or contains `..`."""
    place = PureWindowsPath(name)
    if not place.name or place.anchor or ".." in place.parts or "\0" in name:
        raise ValueError(f"{name!r:.90} is no path below a folder")
    plain = plain_path(name)
    spellings = dict.fromkeys((name, plain, unicodedata.normalize("NFD", plain)))
    paths = [Path(folder, each) for each in spellings]
    return next((p for p in paths[1:] if not paths[0].exists() and p.exists()), paths[0])


def _ends(name: str) -> list[str]:
    """The path in plain spelling, and its ends, the longest first."""
    parts = plain_path(name).split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """At most three of `names` that contain `name`, in any case, or else are spelled like it."""
    inside = [each for each in names if len(name) > 2 and name.casefold() in each.casefold()]
    return inside[:3] or difflib.get_close_matches(name, names, n=3)


def suggestion(name: str, names: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest known names, or else some of all."""
    near = nearest(name, names)
    if near:
        return f"; did you mean {', '.join(near)}?"
    return f"; there are {', '.join(names[:30])}{', ...' if len(names) > 30 else ''}"
