"""The package as users install it: a wheel in an empty virtual environment, far from a clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import wsol
from tests.helpers.commands import ROOT

pytestmark = pytest.mark.ci

SMALL = (
    "--epochs 1 --data.image_size 32 --data.resize 36 --data.batch_size 4 --data.num_workers 0 "
    "--model.name test_resnet --model.last_stride null"
)
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    "OMP_NUM_THREADS": "1",
}


def call(*command: object, cwd: Path) -> str:
    """Standard output of a command that succeeds."""
    words = list(map(str, command))
    done = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The files that a build needs, in a folder called wsol, as `git clone` names it."""
    folder = tmp_path_factory.mktemp("clones") / "wsol"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("configs", "wsol", "robust_training"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A function that makes a virtual environment and installs there what its arguments say."""

    def make(*options: object) -> Path:
        folder = tmp_path_factory.mktemp("environments") / "venv"
        call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        # the dependencies; Python does not follow the .pth files there, so not this checkout's
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install")
        call(*pip, "-q", "--no-deps", "--no-build-isolation", *options, cwd=folder.parent)
        return folder / "bin"

    return make


@pytest.fixture(scope="module")
def installed(clone, environment) -> Path:
    wheels = clone.parent / "wheels"
    build = ("-m", "pip", "wheel", clone, "-q", "--no-deps", "--no-build-isolation", "-w", wheels)
    call(sys.executable, *build, cwd=clone.parent)
    return environment(*wheels.iterdir())


def test_a_wheel_trains_scores_and_localizes(installed, tmp_path):
    command = installed / "wsol"
    assert call(command, "--version", cwd=tmp_path) == f"wsol {wsol.__version__}\n"
    assert "  localize " in call(command, "--help", cwd=tmp_path)
    assert "--config" in call(command, "train", "--help", cwd=tmp_path)
    small = ("--images", 24, "--size", 32, "--species", 2)
    call(command, "prepare", "toy", "data", *small, cwd=tmp_path)
    data = ("--data.root", "data", "--output", "run")
    text = call(command, "train", "--config", "toy_standard", *data, *SMALL.split(), cwd=tmp_path)
    assert "wsol evaluate run" in text
    assert "centred box" in call(command, "evaluate", "run", cwd=tmp_path)
    photos = "data/CUB_200_2011/images"
    assert "24 image(s)" in call(command, "localize", "run", photos, "--output", "o", cwd=tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"data", "run", "o"}


def test_packages_say_that_they_have_types(installed):
    (site,) = installed.parent.glob("lib/python*/site-packages")
    assert {each.parent.name for each in site.glob("*/py.typed")} == {"wsol", "robust_training"}


def test_the_folder_above_a_clone_does_not_hide_an_editable_install(clone, environment):
    python = environment("--editable", clone) / "python"
    line = "import wsol, wsol.cli.config_files as c; print(wsol.__file__, c.find_config('fast'))"
    found = call(python, "-c", line, cwd=clone.parent)
    assert found.split() == [f"{clone}/wsol/__init__.py", f"{clone}/configs/fast.yaml"]
