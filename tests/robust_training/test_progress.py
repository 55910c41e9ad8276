"""Bars in a terminal are tqdm's; a file gets few lines."""

import ast
import io

import pytest

from robust_training import progress
from tests.helpers.commands import ROOT


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock of `progress` that a test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_every_ten_seconds(clock, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    bar = progress.Progress(total=300, desc="work", unit="image", mininterval=0)
    for _ in range(300):  # 30 seconds
        clock[0] += 0.1
        bar.update()
        bar.set_description("work")
    bar.close()
    lines = file.getvalue().splitlines()
    assert len(lines) in (2, 3), lines
    assert all(line.startswith("work: ") and "/300" in line for line in lines)
    assert "\r" not in file.getvalue()
    with progress.Progress(range(9), desc="short") as short:
        assert list(short) == list(range(9))
        short.write("note", file=file)
    assert file.getvalue().splitlines() == [*lines, "note"]


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    assert list(progress.Progress(range(3), desc="work")) == [0, 1, 2]
    assert "\rwork: 100%" in screen.getvalue()


def test_all_bars_are_made_here():
    """Otherwise a log file fills."""
    for part in ("robust_training", "wsol"):
        for file in (ROOT / part).rglob("*.py"):
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
            assert "tqdm" not in modules or file.name == "progress.py", file
