"""Files that appear whole or not at all."""

import os
from pathlib import Path


def write_text(file: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text aside and rename it, so that a reader or a crash never sees half of it."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)
