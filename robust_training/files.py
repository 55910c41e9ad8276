"""Files that appear whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path


def write_text(file: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text aside and rename it, so that a reader or a crash never sees half of it."""
    file = Path(file)
    write_texts(file.parent, {file.name: text})


def write_texts(folder: str | os.PathLike, texts: Mapping[str, str]) -> None:
    """The same for several files, renamed once all are written.

    Args:
        texts: Path below `folder` -> text.
    """
    files = [Path(folder) / name for name in texts]
    partials = [file.with_name(f".{file.name}.partial") for file in files]
    try:
        for partial, text in zip(partials, texts.values(), strict=True):
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
        for file in files:
            if file.is_dir():
                raise IsADirectoryError(f"{file} is a folder, so no file can be written there")
        for partial, file in zip(partials, files, strict=True):
            os.replace(partial, file)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
