"""Sums of objectives with weights and warm-up."""

import pytest
import torch

from robust_training.attacks.pgd import PGD
from robust_training.objectives import (
    ART,
    AdversarialTraining,
    MarginalDensity,
    Part,
    Standard,
    Sum,
)
from tests.helpers.attacks import fixed
from tests.robust_training.training.test_fit import train


def test_parts_are_weighted_and_named(tiny, batch):
    image, label = batch
    tiny.eval()
    attack = fixed((image + 0.01).clamp(0, 1))
    density, art = MarginalDensity(), ART(attack=attack)
    parts = (Part(Standard()), Part(density, 3.0), Part(art, 0.5), Part(density, 0.0))
    terms = Sum(parts)(tiny, image, label)
    standard = Standard()(tiny, image, label)["cross_entropy"]
    smooth, aligned = density(tiny, image, label), art(tiny, image, label)
    expected = {
        "Standard.cross_entropy": standard,
        "MarginalDensity1.cross_entropy": 3 * smooth["cross_entropy"],
        "MarginalDensity1.density": 3 * smooth["density"],
        "ART.cross_entropy": 0.5 * aligned["cross_entropy"],
        "ART.attribution": 0.5 * aligned["attribution"],
        "MarginalDensity2.cross_entropy": 0 * standard,
        "MarginalDensity2.density": 0 * standard,
    }
    assert list(terms) == list(expected)
    torch.testing.assert_close(terms, expected)


def test_a_warm_up_is_linear_and_works_in_nested_sums():
    inner = Sum((Part(Standard(), 2.0, warmup_epochs=4.0),))
    objective = Sum((Part(inner, 3.0), Part(Standard(), 1.0, warmup_epochs=2.0)))
    weights = {}
    for epoch in (0.0, 1.0, 3.0, 10.0):
        now = objective.at(epoch)
        weights[epoch] = (now.parts[0].objective.parts[0].weight, *(p.weight for p in now.parts))
    assert weights == {0.0: (0, 3, 0), 1.0: (0.5, 3, 0.5), 3.0: (1.5, 3, 1), 10.0: (2, 3, 1)}


def test_training_follows_the_warm_up(tmp_path):
    """The weight changes with every step within an epoch, also in a resumed run."""
    parts = Sum((Part(Standard()), Part(Standard(), 1.0, warmup_epochs=2.0)))
    _, log = train(tmp_path / "run", objective=parts, epochs=3)
    fractions = [row["Standard2.cross_entropy"] / row["Standard1.cross_entropy"] for row in log]
    assert 0 < fractions[0] < 0.5 < fractions[1] < fractions[2] == pytest.approx(1)
    train(tmp_path / "parts", objective=parts, epochs=1)
    _, resumed = train(tmp_path / "parts", objective=parts, epochs=3, resume=True)
    without_time = [[{**row, "seconds": 0} for row in rows] for rows in (log, resumed)]
    assert without_time[0] == without_time[1]


def test_each_part_continues_its_own_attack(tmp_path):
    starts = []

    class Watched(PGD):
        def __call__(self, score, image, start=None):
            result = super().__call__(score, image, start)
            starts.append((start, result))
            return result

    attack = Watched(4 / 255, 2 / 255, 1)
    parts = Sum((Part(AdversarialTraining(attack)), Part(ART(attack=attack))))
    train(tmp_path / "run", objective=parts, epochs=1, batch=8, replays=2)
    # before the training, both parts attack two batches of validation
    (_, first), (_, second), (third, _), (fourth, _) = starts[4:8]
    assert torch.equal(third, first)
    assert torch.equal(fourth, second)
    assert not torch.equal(first, second)


def test_bad_parts():
    with pytest.raises(ValueError, match="parts of Sum"):
        Sum()
    with pytest.raises(ValueError, match="weight and warmup_epochs of a Part"):
        Part(Standard(), -1.0)
    with pytest.raises(ValueError, match="weight and warmup_epochs of a Part"):
        Part(Standard(), 1.0, warmup_epochs=-1.0)
