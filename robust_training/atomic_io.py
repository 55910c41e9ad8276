"""Functions that write files completely or not at all."""

import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def write_text(file: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(file, text.encode())


def write_texts(folder: str | os.PathLike, texts: Mapping[str, str]) -> None:
    """Write several files, path below `folder` -> text, under temporary names, then rename all of
    them. Raises OSError if a file cannot be written. Earlier files stay unchanged."""
    _write(Path(folder), {name: text.encode() for name, text in texts.items()})


def write_bytes(file: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write a file under a temporary name, and rename it when it is on the disk. Readers find the
    old file or the new file, never a part of it, also after a crash or a loss of power. Raises
    OSError if it cannot be written, for example to a full disk. No part of it stays."""
    file = Path(file)
    _write(file.parent, {file.name: data})


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder with a temporary name. At the end of the `with` it gets the name
    `folder`: with `replace` in place of an existing folder, as `_replace_folder` says; otherwise
    there must be none. After an error it is removed."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # it may exist after a killed process
    partial.mkdir(parents=True)
    try:
        yield partial
        if replace:
            _replace_folder(partial, folder)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(new: Path, folder: Path) -> None:
    """Move the folder `new` to the place of `folder`.

    If the two differ in one file only (for example two best models of a run), it is replaced, and
    `folder` can be read at every moment. Otherwise `folder` is missing for a moment.
    """
    for file in new.iterdir():
        _sync(file)
    names = sorted(file.name for file in new.iterdir())
    same, differing, _ = filecmp.cmpfiles(new, folder, names, shallow=False)
    if len(same) >= len(names) - 1 and len(same) + len(differing) == len(names):
        for name in differing:
            os.replace(new / name, folder / name)
        _sync(folder)
        return
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, contents: Mapping[str, bytes | memoryview]) -> None:
    files = [folder / name for name in contents]
    partials = [file.with_name(f".{file.name}.partial") for file in files]
    try:
        for file, partial, data in zip(files, partials, contents.values(), strict=True):
            partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(data)
                _sync(partial)
            except OSError as error:  # the error of a full disk has no file name
                raise OSError(f"cannot write {file}: {error.strerror or error}") from error
        for file in files:
            if file.is_dir():
                raise IsADirectoryError(f"{file} is a folder, so no file can be written there")
        for partial, file in zip(partials, files, strict=True):
            os.replace(partial, file)
        for parent in {file.parent for file in files}:
            _sync(parent)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
