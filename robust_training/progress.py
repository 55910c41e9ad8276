"""Progress bars: one in a terminal, and lines in a log file."""

import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 10.0  # between two lines


class Progress(tqdm):
    """The bar of tqdm. If standard error is not a terminal, it writes a line every ten seconds,
    because a bar that redraws itself would fill a file. A shorter loop writes nothing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        in_lines = not sys.stderr.isatty()
        self._next_line = time.monotonic() + SECONDS if in_lines else None
        super().__init__(*arguments, **options | ({"leave": False} if in_lines else {}))

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Draws the bar, or writes a line if one is due."""
        if self._next_line is None:
            return super().display(msg, pos)
        if msg is None and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS
            self.fp.write(f"{self}\n")
        return None

    def clear(self, *arguments: Any, **options: Any) -> None:
        """Removes the bar from the screen for a moment. Lines stay."""
        if self._next_line is None:
            super().clear(*arguments, **options)
