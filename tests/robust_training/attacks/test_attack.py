"""Your own attack can replace PGD everywhere."""

from dataclasses import dataclass

import pytest
import torch

from robust_training import Attack, input_gradient
from robust_training.attacks.map_attack import MapAttack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.scores import cross_entropy_score
from robust_training.objectives import (
    AAT,
    ART,
    TRADES,
    AdvAAT,
    AdversarialTraining,
    EnhancedRegularizers,
    IGNorm,
    IGSumNorm,
)
from robust_training.training.sanity_checks import check_network
from robust_training.training.step import Batch
from tests.helpers.commands import ROOT, tool


@dataclass(frozen=True)
class FGSM(Attack):
    """One step along the sign of the gradient (Goodfellow et al., ICLR 2015)."""

    eps: float = 2 / 255

    def step(self, score, image, perturbed):
        moved = perturbed + self.eps * input_gradient(score, perturbed).sign()
        return (image + (moved - image).clamp(-self.eps, self.eps)).clamp(0, 1).detach()


@dataclass(frozen=True)
class Shrinking(FGSM):
    """An attack with several steps, for the loop of the base class."""

    steps: int = 3


def test_an_attack_defines_one_step_and_is_called_like_pgd(tiny, batch):
    image, label = batch
    score = cross_entropy_score(tiny.eval(), label)
    one = PGD(eps=2 / 255, step_size=2 / 255, steps=1, random_start=False)
    torch.testing.assert_close(FGSM()(score, image), one(score, image), rtol=0, atol=0)
    start = image + 0.001
    several = Shrinking()(score, image, start)
    expected = PGD(eps=2 / 255, step_size=2 / 255, steps=3)(score, image, start)
    torch.testing.assert_close(several, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "objective",
    [
        AdversarialTraining(attack=FGSM()),
        ART(attack=FGSM()),
        TRADES(attack=FGSM()),
        IGSumNorm(attack=FGSM(), steps=2),
        AdvAAT(attack=FGSM()),
        EnhancedRegularizers(attack=FGSM(), steps=2),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_objectives_train_on_it(objective, tiny, batch):
    terms = objective(tiny, *batch)
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in tiny.parameters())


def test_objectives_without_a_gradient_at_the_image_need_a_random_start():
    for objective in (AAT, IGNorm):
        with pytest.raises(ValueError, match="attack.random_start of"):
            objective(attack=FGSM())


def test_map_attacks_use_its_steps(network, images):
    image, label = images
    found = MapAttack(FGSM(eps=8 / 255))(network, image, label)
    expected = MapAttack(PGD(8 / 255, 8 / 255, 1, random_start=False))(network, image, label)
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=0)
    assert found.intersection.mean() < 1


def test_sanity_checks_check_it(tiny, batch):
    for eps, told in ((2 / 255, False), (0.0, True)):
        found = check_network(tiny, AdversarialTraining(attack=FGSM(eps)), Batch(*batch))
        assert any("do not change the images" in sentence for sentence in found) == told


def test_a_configuration_can_name_it(tmp_path):
    file = tmp_path / "fgsm.yaml"
    file.write_text(
        "objective:\n  class_path: ART\n  init_args:\n    attack:\n"
        f"      class_path: {FGSM.__module__}.FGSM\n      init_args: {{eps: 0.02}}\n"
    )
    base = ROOT / "configs" / "methods" / "art.yaml"
    arguments = ["--config", base, "--config", file, "--data.root", "d", "--output", "o"]
    status, text, error = tool("train.py", *arguments, "--print_config")
    assert status == 0, error
    assert "FGSM\n      init_args:\n        eps: 0.02\n" in text


def test_settings_of_pgd_need_no_class_path(tmp_path):
    """A file without a class changes the settings of the file before it."""
    file = tmp_path / "steps.yaml"
    file.write_text("objective: {class_path: ART, init_args: {attack: {steps: 7}}}")
    base = ROOT / "configs" / "methods" / "art.yaml"
    arguments = ["--config", base, "--config", file, "--data.root", "d", "--output", "o"]
    status, text, error = tool("train.py", *arguments, "--print_config")
    assert status == 0, error
    assert "eps: 0.00784\n        step_size: 0.00784\n        steps: 7\n" in text
