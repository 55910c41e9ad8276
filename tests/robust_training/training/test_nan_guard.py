"""A batch that is not finite is named, saved, computed again, or skipped without any effect."""

import re
from dataclasses import dataclass

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from robust_training.objectives import Standard
from tests.helpers.commands import tool
from tests.helpers.commands import train as train_tool
from tests.robust_training.training.test_fit import Stripes, train
from tests.robust_training.training.test_killed_runs import rows, weights

BROKEN = '''
from dataclasses import dataclass
from robust_training.objectives import Standard

@dataclass(frozen=True)
class Broken(Standard):
    """Not finite where the images are brighter than `limit` on average."""
    limit: float = 0.0

    def __call__(self, model, image, label):
        terms = super().__call__(model, image, label)
        bad = float("nan") if image.mean() > self.limit else 0.0
        return terms | {"bad": terms["cross_entropy"] * bad}
'''


@dataclass(frozen=True)
class NoGradient(Standard):
    """A finite loss with an infinite gradient: the square root at 0."""

    def __call__(self, model, image, label):
        terms = super().__call__(model, image, label)
        return terms | {"root": (0 * terms["cross_entropy"]).sqrt()}


def spoil(monkeypatch, *places):
    """Make the images that are loaded at these places not finite."""
    load, loaded = Stripes.__getitem__, []

    def spoiling(self, index):
        item = load(self, index)
        loaded.append(index)
        if len(loaded) - 1 in places:
            item["image"][0, 0, 0] = float("inf")
        return item

    monkeypatch.setattr(Stripes, "__getitem__", spoiling)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_step_leaves_no_trace(tmp_path, monkeypatch, accumulate):
    """Weights, BatchNorm's statistics and the optimizer stay unchanged."""
    settings = {"batch": 4, "accumulate": accumulate, "epochs": 1, "clip_norm": 1.0}
    everything = range(16)
    with monkeypatch.context() as patch:
        spoil(patch, *everything)
        torch.manual_seed(0)
        model, log = train(tmp_path / "none", skip_nonfinite=4, **settings)
    assert log[0]["skipped"] == 4 // accumulate
    assert "cross_entropy" not in log[0]
    with monkeypatch.context() as patch:
        spoil(patch, 0)
        with pytest.raises(FloatingPointError):
            train(tmp_path / "first", **settings)
    untouched = torch.load(next((tmp_path / "first").glob("nonfinite*")), weights_only=True)
    for name, tensor in untouched["model"].items():
        assert torch.equal(model.state_dict()[name], tensor), name
    optimizer = torch.load(tmp_path / "none" / "last.ckpt", weights_only=True)["optimizer"]
    assert optimizer["state"] == {}

    with monkeypatch.context() as patch:
        spoil(patch, 6)
        _, log = train(tmp_path / "one", skip_nonfinite=1, **settings)
    assert log[0]["skipped"] == 1
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "one").values())
    assert rows(tmp_path / "one")[0]["skipped"] == "1"


def test_one_more_than_may_be_skipped_stops_the_run(tmp_path, monkeypatch):
    spoil(monkeypatch, 0, 8)
    with pytest.raises(
        FloatingPointError, match=r"epoch 1/2, step 2: .*images \d+, \d+, \d+ and 5"
    ):
        train(tmp_path / "run", skip_nonfinite=1)
    assert len(list((tmp_path / "run").glob("nonfinite-epoch1-step?.pt"))) == 2


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, clip_norm):
    with pytest.raises(FloatingPointError, match=r"a gradient is not finite at epoch 1/1, step 1:"):
        train(tmp_path / "run", objective=NoGradient(), epochs=1, clip_norm=clip_norm)


def test_a_gradient_scaler_continues_after_a_skipped_step(tmp_path, monkeypatch):
    spoil(monkeypatch, 0)
    scaled = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu"))
    _, log = train(
        tmp_path / "run", batch=4, clip_norm=1.0, skip_nonfinite=1, epochs=1, fabric=scaled
    )
    assert log[0]["skipped"] == 1
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


def test_a_kept_batch_is_computed_again_by_one_command(toy, tmp_path, monkeypatch):
    (tmp_path / "broken_here.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "broken.yaml"
    config.write_text("objective: {class_path: broken_here.Broken, init_args: {limit: 0.0}}\n")
    output = tmp_path / "run"
    small = ("--config", config, "--data.root", toy, "--output", output)
    status, _, error = train_tool(*small, "--model.name", "test_resnet", "--data.batch_size", 4)
    assert status == 2
    assert re.search(r"'bad': nan} of images \d+\.\w+/\w+\.jpg", error), error
    file = re.search(r"--replay (\S+)", error)[1]
    values = re.search(r"'cross_entropy': ([\d.]+)", error)[1]
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    again = ("--config", output / "config.yaml", "--replay", file)
    status, text, error = tool("train.py", *again)
    assert status == 0, error
    assert f"cross_entropy: {values}\n" in text  # to the last digit
    assert "bad: nan  <- not finite" in text
    assert re.search(r"gradient is not finite: \d+, the first conv1", text)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    status, _, error = tool("train.py", *again, "--model.name", "resnet10t")
    assert (status, "is not a saved batch of this run" in error) == (2, True)
