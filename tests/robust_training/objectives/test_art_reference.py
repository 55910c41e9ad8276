"""The official ART code's values for one seeded step."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import input_gradients
from robust_training.models.creating import create_model
from robust_training.objectives import ART
from tests.conftest import cosine
from tests.robust_training.objectives.test_objectives import fixed


def reference_case(shared, case):
    folder = shared / "fixtures" / "art"
    settings = json.loads((folder / f"{case}.json").read_text())
    arrays = np.load(folder / f"{case}.npz")
    model = create_model("resnet50", settings["num_classes"], last_stride=settings["last_stride"])
    rng = np.random.default_rng(settings["seed"])
    state = model.backbone.state_dict()
    for name in sorted(state):
        shape = tuple(state[name].shape)
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) == 4:
            scale = math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
            value = rng.standard_normal(shape) * scale
        elif len(shape) == 2:
            value = rng.standard_normal(shape) * 0.05
        elif name.endswith(("running_var", "weight")):
            value = np.full(shape, 0.2 if name.endswith("bn3.weight") else 1.0)
        else:
            value = np.zeros(shape)
        state[name] = torch.tensor(value, dtype=torch.float32)
    model.backbone.load_state_dict(state)
    model.train(settings["bn_mode"] == "train")
    image, adversarial = (torch.from_numpy(arrays[k]) for k in ("image", "adversarial"))
    return model, settings, arrays, image, torch.from_numpy(arrays["label"]).long(), adversarial


CASES = ["eval_no_attack", "eval_stride1", "train_stride2"]


@pytest.mark.parametrize("case", CASES)
def test_art_losses_and_gradients_equal_the_reference(shared, case):
    model, settings, arrays, image, label, adversarial = reference_case(shared, case)
    art = ART(weight=settings["weight"], attack=fixed(adversarial), beta=settings["beta"])
    terms = art(model, image, label)
    assert terms["cross_entropy"].item() == pytest.approx(settings["cross_entropy"], rel=1e-4)
    expected = settings["weight"] * settings["attribution_loss"]
    assert terms["attribution"].item() == pytest.approx(expected, rel=1e-4)
    sum(terms.values()).backward()
    parameters = dict(model.backbone.named_parameters())
    for name, norm in settings["gradient_norms"].items():
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-3)
    pair = torch.cat([image, adversarial])
    true, _ = input_gradients(art._scores(model, label.repeat(2)), pair)
    actual = (true * model.std)[:, :, ::2, ::2]
    expected = torch.from_numpy(arrays["gradient_true"])
    assert cosine([actual], [expected]) > 1 - 1e-6
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-3


@pytest.mark.parametrize(
    ("threads", "least"),
    [
        pytest.param(
            "1",
            {"eval_no_attack": 0.99, "eval_stride1": 0.99, "train_stride2": 0.95},
            marks=pytest.mark.ci,
        ),
        # the reference had two; measured: 1.0 for all
        pytest.param("2", dict.fromkeys(CASES, 0.99), marks=pytest.mark.slow),
    ],
)
def test_art_attack_equals_the_reference(shared, threads, least):
    """In a process that computes with AVX2, as the reference did: with batch statistics the three
    sign steps amplify rounding. AVX-512 convolutions alone change a quarter of the pixels, and
    another number of threads changes three in a hundred."""
    script = (
        "from pathlib import Path; "
        "from tests.robust_training.objectives.test_art_reference import CASES, attack_equality; "
        f"[print(attack_equality(Path({str(shared)!r}), case)) for case in CASES]"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": threads}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    for case, line in zip(CASES, result.stdout.splitlines(), strict=True):
        equal, statistics = map(float, line.split())
        assert equal > least[case], case
        assert statistics < 1e-5, case


def attack_equality(shared, case):
    """Fraction of pixels equal to the reference's, and how far BatchNorm's first mean is off."""
    torch.set_flush_denormal(False)
    model, settings, _, image, label, adversarial = reference_case(shared, case)
    attack = PGD(settings["eps"], settings["step_size"], settings["steps"])
    art = ART(attack=attack, top_k=settings["top_k"], beta=settings["beta"])
    torch.manual_seed(settings["seed"])
    attacked = art.attack_images(model, image, label)
    equal = ((attacked - adversarial).abs() < 1e-6).float().mean().item()
    mean = model.backbone.bn1.running_mean.sum().item()
    return f"{equal} {abs(mean - settings['bn1_running_mean_sum_after_attack'])}"


@pytest.mark.ci
def test_a_finite_difference_attack_is_as_strong(shared):
    """The attribution loss after three steps from one start, compared with the exact attack."""
    model, _, _, image, label, _ = reference_case(shared, "eval_stride1")
    gains = {}
    for curvature in ("exact", "finite_difference"):
        art = ART(attack_curvature=curvature, weight=1.0)
        torch.manual_seed(0)
        start = art.attack.start(image)
        torch.manual_seed(0)
        attacked = art.attack_images(model, image, label)
        support = torch.arange(image[0, 0].numel()).expand(len(image), -1)
        score = art._attack_score(model, label, support)
        gains[curvature] = (score(attacked) - score(start)).mean().item()
    exact, first_order = gains.values()
    assert exact > 0
    assert first_order > 0.9 * exact
