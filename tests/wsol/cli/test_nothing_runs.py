"""Files that try to run code, to be read or written outside their folder, or to be more than
text."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import get_loader
from lightning_fabric import Fabric
from torch import nn

from robust_training.models.creating import create_model
from robust_training.models.saving import load_model, save_model
from robust_training.models.weights import load_weights
from robust_training.training.checkpoint import LAST, load_checkpoint
from tests.helpers.birds import birds, write_published
from tests.helpers.commands import ROOT, tool
from wsol.annotations.ground_truth import with_masks
from wsol.annotations.metadata import read_published_metadata
from wsol.benchmarks.synthetic_maps import write_synthetic_maps
from wsol.cli.parser import Parser
from wsol.data.cub import CUB200
from wsol.data.loaders import read_data_config
from wsol.evaluation.results import _FORMULA, Scores, image_table
from wsol.evaluation.scoremaps import any_scoremap, find_scoremaps, read_scoremap
from wsol.localizer.localizer import Localizer
from wsol.report.number_format import markdown
from wsol.report.plots import trade_offs
from wsol.robustness.roar import write_replaced


class Payload:
    """Pickle calls this while it reads the file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """A file that is there if something ran."""
    mark = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists(), "the payload works"
    mark.unlink()
    yield mark
    assert not mark.exists()


@pytest.fixture(scope="module")
def model():
    model = create_model("test_resnet", 3, image_size=32).eval()
    model.class_names = ["a", "b", "c"]
    return model


def _pickle(thing, file):
    file.write_bytes(pickle.dumps(thing))


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "safetensors"])
@pytest.mark.parametrize("write", [torch.save, _pickle])
def test_weights_run_nothing(model, tmp_path, mark, suffix, write):
    file = tmp_path / f"weights.{suffix}"
    write({"conv1.weight": Payload(mark)}, file)
    with pytest.raises(ValueError, match=rf"cannot read weights from .*weights.{suffix}"):
        load_weights(model.backbone, file)


def test_a_model_folder_runs_nothing(model, tmp_path, mark):
    save_model(model, tmp_path / "model")
    torch.save(Payload(mark), tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match=r"cannot read weights"):
        load_model(tmp_path / "model")


def test_a_checkpoint_runs_nothing(tmp_path, mark):
    torch.save({"model": Payload(mark), "epoch": 3}, tmp_path / LAST)
    state = {"model": nn.Linear(1, 1), "epoch": 0}
    with pytest.raises(ValueError, match=r"last.ckpt"):
        load_checkpoint(Fabric(accelerator="cpu", devices=1), tmp_path, state)


def test_a_map_runs_nothing(tmp_path, mark):
    np.save(tmp_path / "a.npy", np.array([Payload(mark)], dtype=object))
    np.savez(tmp_path / "b.npy.npz", np.array([Payload(mark)], dtype=object))
    (tmp_path / "b.npy.npz").rename(tmp_path / "b.npy")
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Payload(mark)))
    for name in "abc":
        with pytest.raises(ValueError, match=rf"map .*{name}.npy"):
            read_scoremap(tmp_path / f"{name}.npy")


def _commands(mark):
    command = f"touch {mark}"
    run = f"{{class_path: subprocess.Popen, init_args: {{args: [touch, {mark}]}}}}"
    call = f"{{class_path: os.system, init_args: {{command: {command}}}}}"
    policy = f"{{auto_wrap_policy: {call}}}"
    fsdp = "{class_path: lightning_fabric.strategies.FSDPStrategy, init_args: " + policy + "}"
    return {
        "optimizer called": f"optimizer: {call}",
        "optimizer run": f"optimizer: {run}",
        "optimizer named": "optimizer: os.system",
        "objective called": f"objective: {call}",
        "objective run": f"objective: {run}",
        "schedule": f"schedule: {run}",
        "attack": f"objective: {{class_path: ART, init_args: {{attack: {run}}}}}",
        "log_gradient": f"model: {{log_gradient: {run}}}",
        "weights": f"model: {{weights: {call}}}",
        "root": f"data: {{root: {run}}}",
        "data set called": "data: {root: x, class_path: os.system}",
        "data set run": "data: {root: x, class_path: subprocess.Popen}",
        "data set with settings": f"data: {{root: x, class_path: {run}}}",
        "multipliers": f"lr_multipliers: {{a: {run}}}",
        "callbacks": f"fabric: {{callbacks: [{run}, {call}]}}",
        "callback": f"fabric: {{callbacks: {call}}}",
        "strategy": f"fabric: {{strategy: {fsdp}}}",
        "loggers": f"fabric: {{loggers: [{run}]}}",
        "plugins": f"fabric: {{plugins: [{run}]}}",
        "tag": f"epochs: !!python/object/apply:os.system ['{command}']",
        "new": f"seed: !!python/object/new:subprocess.Popen [[touch, '{mark}']]",
        "name": "objective: !!python/name:os.system",
    }


@pytest.mark.parametrize("name", _commands(Path("x")))
def test_settings_run_nothing(tmp_path, mark, name):
    """One line and status 2; the data set is not there, so no training could begin either."""
    config = tmp_path / "config.yaml"
    config.write_text(_commands(mark)[name])
    base = ROOT / "configs" / "toy_art.yaml"
    options = ("--data.root", tmp_path / "nowhere", "--output", tmp_path / "run")
    status, _, error = tool("train.py", "--config", base, "--config", config, *options)
    assert (status, error[:7]) == (2, "error: ")
    assert any(word in error for word in ("config.yaml", "class_path", "Import path", "nowhere"))
    assert not (tmp_path / "run").exists()


def test_the_names_in_a_runs_metrics_import_nothing(model, tmp_path, mark, monkeypatch):
    """A heatmap may be named by a class path on the command line; files name no code."""
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    save_model(model, tmp_path / "model")
    row = {"heatmap": "evil.Map", "policy": "val", "threshold": 0.6}
    metrics = json.dumps({"localization": [row, row | {"heatmap": "os.system"}]})
    (tmp_path / "model" / "metrics.json").write_text(metrics)
    assert Localizer.load(tmp_path / "model").threshold == 0.2
    assert "evil" not in sys.modules


def test_only_heatmap_methods_are_called_by_class_path(model, tmp_path, mark, monkeypatch):
    touch = f"pathlib.Path({str(mark)!r}).touch()"
    (tmp_path / "not_methods.py").write_text(
        f"import pathlib\n\n\ndef function():\n    {touch}\n\n\n"
        f"class Other:\n    def __init__(self):\n        {touch}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    save_model(model, tmp_path / "model")
    for name in ("function", "Other"):
        with pytest.raises(ValueError, match=f"not_methods.{name} is not a subclass"):
            Localizer.load(tmp_path / "model", f"not_methods.{name}")
    for path in ("os.system", "subprocess.Popen"):
        options = ("--method", path, "--output", tmp_path / "out")
        status, _, error = tool("localize.py", tmp_path / "model", ROOT / "docs", *options)
        assert (status, "is not a subclass of" in error) == (2, True), error


def test_settings_of_a_run_run_nothing(tmp_path, mark):
    for text in _commands(mark).values():
        (tmp_path / "config.yaml").write_text(
            text.replace("data: {root: {", "data: {root: x, class_path: {")
        )
        with pytest.raises(ValueError, match=r"config.yaml"):
            read_data_config(tmp_path)


def test_aliases_that_stand_for_billions_are_refused(tmp_path):
    lines = ["data: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    bomb, loop = tmp_path / "bomb.yaml", tmp_path / "loop.yaml"
    bomb.write_text("\n".join(lines))
    loop.write_text("data: &a {root: *a, class_path: [*a, *a]}")
    parser = Parser()
    parser.add_argument("--config", action="config")
    for file in (bomb, loop):
        with pytest.raises(ValueError, match=rf"{file.name}: its aliases"):
            parser.parse_args(["--config", str(file)])
        assert get_loader("yaml").__module__.startswith(
            "jsonargparse."
        )  # other parsers keep theirs
        shutil.copy(file, tmp_path / "config.yaml")
        with pytest.raises(ValueError, match=r"config.yaml .*aliases"):
            read_data_config(tmp_path)


OUTSIDE = ["../../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:\\secret", "a\0b", "."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_images_of_a_data_set_lie_in_it(toy, tmp_path, name):
    folder = shutil.copytree(toy, tmp_path / "CUB_200_2011")
    lines = (folder / "images.txt").read_text().splitlines()
    lines[1] = f"2 {name}"
    (folder / "images.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"images.txt, line 2: "):
        CUB200(folder, "train")


@pytest.mark.parametrize("name", OUTSIDE[:5])
def test_masks_and_maps_lie_in_their_folders(tmp_path, name):
    truth = birds([(2, 2, 10, 12)])
    folder = write_published(tmp_path / "a" / "b" / "meta", truth)
    for line in (f"0.jpg,{name},", f"0.jpg,m.png,{name}"):
        (folder / "localization.txt").write_text(line)
        with pytest.raises(ValueError, match=r"localization.txt, line 1: .* is no path below"):
            read_published_metadata(folder)
    named = SimpleNamespace(names=(name,), boxes=truth.boxes, sizes=truth.sizes)
    (tmp_path / "secret.npy").write_bytes(b"")
    for use in (with_masks, lambda truth, f: any_scoremap(f, truth), write_synthetic_maps_to):
        with pytest.raises(ValueError, match="is no path below"):
            use(named, folder)
    with pytest.raises(ValueError, match="is no path below"):
        find_scoremaps(folder, named)


def write_synthetic_maps_to(truth, folder):
    write_synthetic_maps(folder, truth, 8)


@pytest.mark.parametrize("name", OUTSIDE[:4])
def test_a_data_set_is_written_in_its_folder(toy, model, tmp_path, name):
    """The names of a data set that some other program made in memory."""
    data = CUB200(toy, "test")
    object.__setattr__(data.examples[0], "name", name)
    with pytest.raises(ValueError, match="is no path below"):
        write_replaced(
            tmp_path / "a" / "b" / "out",
            model,
            [data],
            importance=lambda model, image: image[:, 0],
            fraction=0.5,
            mode="roar",
        )
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert all(file.is_relative_to(tmp_path / "a" / "b") for file in files)


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;${images}|$x^{$"


def test_a_name_is_no_formula_for_matplotlib():
    picture = trade_offs({EVIL: {EVIL: [(0.5, 0.25)]}}, "a", {EVIL: EVIL})
    assert picture.startswith(b"\x89PNG")


def test_a_name_is_no_formula_for_a_spreadsheet():
    names = [f"{first}cmd|' /C calc'!A0.jpg" for first in "=+-@"] + ["plain.jpg", "a=b.jpg"]
    truth = birds([(2, 2, 10, 12)] * 6)
    output = SimpleNamespace(
        truth=SimpleNamespace(names=names, labels=truth.labels), predictions=None
    )
    row = SimpleNamespace(threshold=None, heatmap="maps", policy="given")
    headline = SimpleNamespace(
        row=row, boxes=truth.boxes[:, 0], iou=np.ones(6), error_types=["right"] * 6
    )
    table = image_table(Scores({}, (headline,), output))
    first = [line.split(",")[0] for line in table.splitlines()[1:]]
    assert not any(cell.startswith(_FORMULA) for cell in first)
    assert [os.path.normpath(cell) for cell in first] == names


def test_a_name_does_not_steer_the_terminal(tmp_path):
    name = "a\x1b]0;title\x07\x1b[2J\u202e.jpg"
    status, _, error = tool("localize.py", tmp_path, tmp_path / name, "--output", tmp_path / "out")
    assert (status, error[:7]) == (2, "error: ")
    assert error.isprintable()
    assert "a\\x1b]0;title\\x07\\x1b[2J\\u202e.jpg" in error


def test_a_name_ends_no_cell_of_a_table():
    text = markdown(("model", "score"), [["a|b\n# c", "1"]], 1)
    assert text.splitlines()[2] == "| a\\|b # c | 1 |"
    assert len(text.splitlines()) == 3
