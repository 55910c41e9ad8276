"""Running the tools as a user types them, in this process."""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]


def tool(name, *arguments, cwd=None):
    """(exit status, standard output, last line of standard error that is no progress bar)."""
    output, errors = io.StringIO(), io.StringIO()
    command = [name, *map(str, arguments)]
    status = 0
    with (
        mock.patch.object(sys, "argv", command),
        contextlib.chdir(cwd or ROOT),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    return status, output.getvalue(), lines[-1] if lines else ""


def train(*arguments):
    config = ROOT / "configs" / "toy_art.yaml"
    small = (
        "--data.image_size",
        32,
        "--data.num_workers",
        0,
        "--epochs",
        1,
    )
    return tool("train.py", "--config", config, *small, *arguments)


def page_data(file):
    """The data that a report's page embeds for its gallery."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(pattern, Path(file).read_text(), re.DOTALL)[1])
