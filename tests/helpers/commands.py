"""Running the tools as a user types them, in this process."""

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
MODULE = "wsol.cli.commands"


def tool(name, *arguments, cwd=None):
    """(exit status, standard output, last line of standard error that is no progress bar)."""
    script = ROOT / "tools" / name
    return _run([f"tools/{name}", *arguments], lambda: _script(script), cwd)


def console(*arguments, cwd=None):
    """Run the command `wsol`, and return the same as `tool`."""
    return _run(["wsol", *arguments], lambda: runpy.run_module(MODULE, run_name="__main__"), cwd)


def _script(file):
    runpy.run_path(str(file), run_name="__main__")


def _run(words, start, cwd):
    output, errors = io.StringIO(), io.StringIO()
    command = list(map(str, words))
    status = 0
    with (
        mock.patch.object(sys, "argv", command),
        contextlib.chdir(cwd or ROOT),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            start()
        except SystemExit as stop:
            status = stop.code
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    return status, output.getvalue(), lines[-1] if lines else ""


@contextlib.contextmanager
def starting_nothing():
    """Commands that a tool starts run in this process: a start of Python takes seconds."""

    def call(command, stdout=None, stderr=None, env=None):
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stdout):
            try:
                with mock.patch.object(sys, "argv", ["wsol", *command[4:]]):
                    runpy.run_module(MODULE, run_name="__main__")
            except SystemExit as stop:
                return stop.code or 0
        return 0

    with mock.patch.object(subprocess, "call", call):
        yield


def tool_process(name, *arguments):
    """(exit status, standard output, standard error) of a tool in a process of its own."""
    command = [sys.executable, ROOT / "tools" / name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    return done.returncode, done.stdout, done.stderr


def train(*arguments):
    configs = ("--config", "toy_standard", "--config", "methods/art")
    network = ("--model.name", "test_resnet", "--model.last_stride", "null")
    small = (*network, "--data.image_size", 32, "--data.num_workers", 0, "--epochs", 1)
    return tool("train.py", *configs, *small, *arguments)


def page_data(file):
    """The data that a report's page embeds for its gallery."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(pattern, Path(file).read_text(), re.DOTALL)[1])
