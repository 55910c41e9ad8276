"""Whether an objective's terms were trained, measured on validation images."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

from robust_training.attacks.pgd import PGD
from robust_training.objectives import (
    ART,
    AdversarialTraining,
    MarginalDensity,
    Part,
    Standard,
    Sum,
)
from robust_training.training.log import csv_text, read_log
from robust_training.training.step import Batch, Step
from robust_training.training.validation import training_notes, unmoved_terms
from tests.robust_training.training.test_fit import Stripes, train

LN2 = math.log(2)
ATTACK = PGD(eps=2 / 255, step_size=2 / 255, steps=1)


class Still(Stripes):
    """Stripes whose images are equal at every visit."""

    def __getitem__(self, index):
        torch.manual_seed(index)
        return super().__getitem__(index)


def test_terms_are_those_of_the_saved_model_on_validation_images(tmp_path):
    art = ART(weight=2.0, attack=ATTACK, curvature="finite_difference")
    validation = DataLoader(Still(), 8)
    model, (_, row) = train(tmp_path, objective=art, validation=validation)
    found = []
    for number, batch in enumerate(validation):
        torch.manual_seed(number)
        found.append(Step(model.eval(), art)(Batch(batch["image"], batch["label"])))
    for name in ("cross_entropy", "attribution"):
        expected = sum(terms[name].item() for terms in found) / len(found)
        assert row[f"val_{name}"] == pytest.approx(expected, rel=1e-5)
    assert row["val_attribution_untrained"] == pytest.approx(2 * LN2)
    assert read_log(tmp_path) == [{k: float(v) for k, v in each.items()} for each in (_, row)]


def test_clean_cross_entropy_is_not_measured_twice(tmp_path):
    _, (row, _) = train(tmp_path / "standard", objective=Standard())
    assert [name for name in row if name.startswith("val_")] == ["val_accuracy", "val_loss"]
    _, (row, _) = train(tmp_path / "pgd", objective=AdversarialTraining(attack=ATTACK))
    assert row["val_cross_entropy"] > row["val_loss"]


@pytest.mark.parametrize(
    ("values", "untrained", "words"),
    [
        ([0.6], 0.7, None),
        ([0.699], 0.7, "0.699, and 0.7 for an untrained network; raise"),
        ([float("nan")], 0.7, "it is nan"),
        ([0.0], 0.0, "weight 0: this run is a control"),
        ([5.0, 4.0], None, None),
        ([5.0, 5.1], None, "5.1, and 5 after the first epoch"),
        ([5.0], None, None),  # one epoch shows no change
        ([-5.0, -6.0], None, None),
    ],
)
def test_each_term_is_said_to_have_fallen_or_not(values, untrained, words):
    known = {} if untrained is None else {"val_pull_untrained": untrained}
    log = [{"epoch": 1, "val_accuracy": 0.5, "val_loss": 1, "val_pull": v} | known for v in values]
    found, notes = unmoved_terms(log), training_notes(log)
    fell = [line for line in notes if line not in found]
    assert len(found) == (words is not None)
    assert all(line.startswith("pull ") and words in line for line in found)
    assert len(fell) == (words is None and (untrained is not None or len(values) > 1))
    assert all(line.startswith("pull fell") and f"it is {values[-1]:g}" in line for line in fell)
    assert unmoved_terms([]) == training_notes([]) == []


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (0.5, 2.0, "pull fell on validation images: it is 0.5, and 2 before this training"),
        (
            2.1,
            2.0,
            "pull did not train: on validation images it is 2.1, and 2 before this training",
        ),
    ],
)
def test_the_value_before_the_training_counts_where_none_is_known(now, before, words):
    rows = [{"val_pull": now, "val_pull_before": before} for _ in range(2)]  # steady since then
    (line,) = training_notes(rows)
    assert line.startswith(words)
    known = rows[-1] | {"val_pull_untrained": 0.0}
    assert "weight 0" in training_notes([known])[0]


def test_terms_are_measured_before_the_training(tmp_path):
    """The first value is that of the network that `train` makes, at the same images and seeds."""
    objective, validation = MarginalDensity(weight=0.5), DataLoader(Still(), 8)
    _, rows = train(tmp_path / "run", objective=objective, validation=validation, epochs=2)
    _, (untouched,) = train(tmp_path / "zero", objective=objective, validation=validation, epochs=0)
    (column,) = (name for name in rows[0] if name.endswith("_before"))
    assert [row[column] for row in rows] == [untouched[column.removesuffix("_before")]] * 2
    assert rows[0][column.removesuffix("_before")] != rows[0][column]
    _, rows = train(tmp_path / "art", objective=ART(attack=ATTACK), validation=validation)
    before = [name for name in rows[0] if name.endswith("_before")]
    assert before == ["val_gradient_cosine_before"]  # ART's untrained value is known
    _, rows = train(tmp_path / "standard", objective=Standard(), validation=validation)
    assert not [name for name in rows[0] if name.endswith("_before")]


def test_the_steadiness_of_the_gradient_is_measured_before_and_after_training(tmp_path):
    validation = DataLoader(Still(), 8)
    objective = AdversarialTraining(attack=ATTACK)
    model, rows = train(tmp_path, objective=objective, validation=validation)
    cosines = []
    for number, batch in enumerate(validation):
        image = batch["image"].requires_grad_()
        torch.manual_seed(number)
        noisy = (image.detach() + (2 * torch.rand_like(image) - 1) * 2 / 255).clamp(0, 1)
        noisy.requires_grad_()
        first, second = (
            torch.autograd.grad(
                torch.nn.functional.cross_entropy(model.eval()(each), batch["label"]), each
            )[0].double()
            for each in (image, noisy)
        )
        cosines.extend(
            (a * b).sum() / (a.norm() * b.norm()) for a, b in zip(first, second, strict=True)
        )
    assert rows[-1]["val_gradient_cosine"] == pytest.approx(sum(cosines).item() / len(cosines))
    before = {row["val_gradient_cosine_before"] for row in rows}
    assert len(before) == 1
    assert -1 <= before.pop() <= 1
    _, (row, _) = train(tmp_path / "standard", objective=Standard())
    assert "val_gradient_cosine" not in row


def test_a_gradient_that_turns_more_than_before_the_training_is_reported():
    def notes(now, before):
        row = {"epoch": 1, "val_gradient_cosine": now, "val_gradient_cosine_before": before}
        return " ".join(training_notes([row]))

    assert "mean cosine 0.50, 0.64 before" in notes(0.5, 0.64)
    assert notes(0.9, 0.64) == notes(math.nan, 0.64) == notes(0.5, math.nan) == ""
    assert training_notes([{"epoch": 1, "val_gradient_cosine": 0.1}]) == []  # an older run


def test_a_sum_knows_the_untrained_terms_of_its_parts():
    both = Sum((Part(Standard()), Part(ART(weight=3.0), 0.5, warmup_epochs=2)))
    assert both.at(1).untrained_terms() == pytest.approx({"ART.attribution": 0.75 * LN2})


def test_a_log_that_is_none_has_no_rows(tmp_path):
    assert read_log(None) == read_log(tmp_path) == []
    (tmp_path / "log.csv").write_text(csv_text([{"epoch": 1, "loss": 2}, {"epoch": 2}]))
    first, second = read_log(tmp_path)
    assert first == {"epoch": 1, "loss": 2}
    assert math.isnan(second["loss"])
