"""Every command and every piece of Python in README.md and docs/, run in the documents' order.

Each document has a folder of its own (`stage.set_stage`), in which a command finds what the ones
before it left. What a document takes for granted is in `GIVEN`.
"""

import contextlib
import io
import shutil

import pytest
import torch

from tests.helpers.commands import tool
from tests.helpers.documents import DOCUMENTS, PYTHON, SHELL, blocks, name_of, words
from tests.helpers.stage import (
    NOT_RUN,
    NOT_TOOLS,
    importing_from,
    perform,
    perform_elsewhere,
    rule,
    set_stage,
    small,
)
from wsol.data.toy_birds.writing import write_toy_birds

pytestmark = pytest.mark.slow

# runs that were trained before, on other pages
GIVEN = {
    "README.md": ["runs/quickstart-1/pgd"],
    "docs/export.md": ["runs/cub_art"],
    "docs/protocols.md": ["runs/cub_art"],
    "docs/reliability.md": ["runs/x"],
    "docs/robustness.md": ["RUN", "OTHER_RUN"],
    "docs/experiments/robustness.md": ["RUN", "standard", "pgd2", "pgd8"],
}
WEIGHTS = [f"mobilenetv2_100.{known}.safetensors" for known in ("imagenet", "inat_birds")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_toy_birds(tmp_path_factory.mktemp("data"), images=24, size=40, species=2).parent


def train(data, output, *options):
    standard = ["--config", "configs/toy_standard.yaml", "--data.root", str(data)]
    return tool("train.py", *small("train.py", [*standard, "--output", str(output)]), *options)


@pytest.fixture(scope="module")
def given_run(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("given") / "run"
    status, _, error = train(data, run)
    assert status == 0, error
    status, _, error = tool("evaluate.py", run)
    assert status == 0, error
    return run


@pytest.fixture
def stage(request, given_run, data, tmp_path):
    set_stage(tmp_path, data)
    for name in GIVEN.get(name_of(request.getfixturevalue("document")), ()):
        shutil.copytree(given_run, tmp_path / name)
    for name in WEIGHTS:
        shutil.copy(given_run / "best" / "model.safetensors", tmp_path / name)
    (tmp_path / "localizer.onnx").symlink_to(tmp_path / "runs" / "cub_art" / "localizer.onnx")
    if (tmp_path / "runs" / "x").is_dir():
        train(data, tmp_path / "broken", "--optimizer.init_args.lr", 1e38, "--clip_norm", "null")
        (kept,) = (tmp_path / "broken").glob("nonfinite-*.pt")
        shutil.move(kept, tmp_path / "runs" / "x" / "nonfinite-epoch3-step17.pt")
    return tmp_path


def run(command, stage):
    if command in NOT_TOOLS or any(word in command for word in NOT_RUN):
        return
    shutil.rmtree(stage / "DIR", ignore_errors=True)  # each time another one
    found, variables = words(command, stage), {}
    while "=" in found[0]:
        name, _, value = found.pop(0).partition("=")
        variables[name] = value.replace(".", str(stage), 1)
    assert set(variables) <= {"PYTHONPATH"}
    if found[:2] == ["python", "run_onnx.py"]:
        perform_elsewhere(found, stage)
        return
    key, arguments = rule(found)
    perform(key.split()[0], small(key, arguments), stage)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_works(document, stage):
    torch.manual_seed(0)
    names = {
        "image": torch.rand(2, 3, 32, 32),
        "images": torch.rand(2, 3, 32, 32),
        "label": torch.tensor([0, 1]),
        "heatmap": torch.rand(16, 16).numpy(),
        "mean": torch.full((1, 3, 1, 1), 0.5),
        "std": torch.full((1, 3, 1, 1), 0.25),
    }
    with importing_from(stage):
        for block in blocks(document):
            print(block.place)
            if block.file:
                (stage / block.file).write_text(block.text)
            elif block.language == PYTHON:
                output = io.StringIO()
                with contextlib.chdir(stage), contextlib.redirect_stdout(output):
                    exec(compile(block.text, block.place, "exec"), names)
            for command in block.commands() if block.language == SHELL else ():
                print(" ", command)
                run(command, stage)
