"""Runs that cannot learn print a warning."""

import pytest
import torch

from robust_training.attacks.pgd import PGD
from robust_training.objectives import ART, AdversarialTraining, Part, Standard, Sum
from robust_training.training.sanity_checks import check_network, check_terms
from robust_training.training.step import Batch


def log(*losses):
    return [{"epoch": i + 1, "cross_entropy": loss} for i, loss in enumerate(losses)]


def told(model, objective, batch):
    return " ".join(check_network(model, objective, Batch(*batch)))


def test_a_network_that_learns_gets_no_warning(tiny, batch):
    for objective in (Standard(), AdversarialTraining(), ART()):
        assert told(tiny, objective, batch) == ""


def test_constant_logits_and_empty_maps(tiny, batch):
    torch.nn.init.zeros_(tiny.backbone.fc.weight)
    text = told(tiny, Standard(), batch)
    assert "all images get the same logits" in text
    assert "zero on 3 of 3 training images" in text


@pytest.mark.parametrize("in_a_sum", [False, True])
def test_attacks_without_effect(tiny, batch, in_a_sum):
    def attacked(**settings):
        objective = AdversarialTraining(attack=PGD(**settings))
        return told(tiny, Sum((Part(objective),)) if in_a_sum else objective, batch)

    assert "do not change the images" in attacked(eps=0)
    assert "do not change the images" in attacked(eps=0, random_start=False)
    torch.nn.init.zeros_(tiny.backbone.fc.weight)
    assert "do not change the images" in attacked(eps=8 / 255)


def test_an_attack_that_lowers_its_score_is_reported(tiny, batch, monkeypatch):
    monkeypatch.setattr(
        "robust_training.attacks.pgd._Linf.steepest", lambda gradient: -gradient.sign()
    )
    objective = AdversarialTraining(attack=PGD(random_start=False))
    assert "does not increase its score" in told(tiny, objective, batch)


def test_a_loss_that_does_not_fall():
    def found(losses, objective):
        return " ".join(check_terms({"cross_entropy": losses[-1]}, log(*losses[:-1]), objective, 2))

    assert "has not fallen since the first epoch (1, now 1.5)" in found((1.0, 0.9, 1.5), Standard())
    assert found((1.0, 1.1, 0.9), Standard()) == ""
    assert found((1.0, 1.5), Standard()) == ""  # too soon
    assert found((1.0, 0.9, 1.5), Sum((Part(Standard(), warmup_epochs=3),))) == ""
