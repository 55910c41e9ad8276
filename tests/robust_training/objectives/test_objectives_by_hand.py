"""Every objective on a linear classifier, compared with its formula in NumPy."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp, rel_entr, softmax

from robust_training.attribution.explanation import (
    InputXGradient,
    IntegratedGradients,
    input_x_gradient,
)
from robust_training.attribution.gradients import input_gradient, input_gradients, path_integrals
from robust_training.attribution.scores import class_score
from robust_training.models.classifier import Classifier
from robust_training.objectives import (
    AAT,
    TRADES,
    AdvAAT,
    EnhancedRegularizers,
    IGNorm,
    IGSumNorm,
    InputGradientPenalty,
    MarginalDensity,
)
from robust_training.objectives.enhanced_regularizers import contrast, weighted_change
from tests.helpers.attacks import fixed

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.3, 0.25, 0.2])


@pytest.fixture
def linear() -> Classifier:
    """147 inputs, 4 classes, float64."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(147, 4)).double()
    net.num_classes = 4
    with torch.no_grad():
        net[1].weight.mul_(3)
    return Classifier(net, tuple(MEAN), tuple(STD)).double()


class ByHand:
    """The linear classifier and its attributions in NumPy, on vectors of 147 pixels."""

    def __init__(self, model: Classifier) -> None:
        weight, bias = (p.detach().numpy() for p in model.backbone[1].parameters())
        mean, std = (np.repeat(values, 49) for values in (MEAN, STD))
        self.rows = weight / std
        self.offset = bias - self.rows @ mean

    def logits(self, x):
        return self.rows @ x + self.offset

    def cross_entropy(self, x, y):
        return -log_softmax(self.logits(x))[y]

    def loss_gradient(self, x, y):
        return softmax(self.logits(x)) @ self.rows - self.rows[y]

    def probability_gradient(self, x, c):
        p = softmax(self.logits(x))
        return p[c] * (self.rows[c] - p @ self.rows)

    def path(self, gradient, start, end, steps):
        points = [start + k / steps * (end - start) for k in range(1, steps + 1)]
        return (end - start) * np.mean([gradient(z) for z in points], axis=0)


@pytest.fixture
def case(linear, batch):
    """(model, images, labels, attacked images, [(x, x', y)] as vectors, by hand)."""
    image, label = batch
    torch.manual_seed(3)
    attacked = (image + 0.05 * torch.randn_like(image)).clamp(0, 1)
    rows = [
        (x.flatten().numpy(), a.flatten().numpy(), int(y))
        for x, a, y in zip(image, attacked, label, strict=True)
    ]
    return linear, image, label, attacked, rows, ByHand(linear)


def check(terms, *, rel=1e-9, **expected):
    for name, values in expected.items():
        assert terms[name].item() == pytest.approx(np.mean(values), rel=rel), name


def test_trades(case):
    model, image, label, attacked, rows, hand = case
    terms = TRADES(weight=2.0, attack=fixed(attacked))(model, image, label)
    kl = [2 * rel_entr(softmax(hand.logits(x)), softmax(hand.logits(a))).sum() for x, a, _ in rows]
    check(terms, cross_entropy=[hand.cross_entropy(x, y) for x, _, y in rows], consistency=kl)


def test_ig_norms(case):
    model, image, label, attacked, rows, hand = case
    norms = [
        0.5 * np.abs(hand.path(lambda z, y=y: hand.loss_gradient(z, y), x, a, 3)).sum()
        for x, a, y in rows
    ]
    settings = {"weight": 0.5, "attack": fixed(attacked), "steps": 3}
    terms = IGNorm(**settings)(model, image, label)
    check(terms, cross_entropy=[hand.cross_entropy(x, y) for x, _, y in rows], attribution=norms)
    terms = IGSumNorm(**settings)(model, image, label)
    attacked_loss = [hand.cross_entropy(a, y) for _, a, y in rows]
    check(terms, cross_entropy=attacked_loss, attribution=norms)
    sums = IGSumNorm(**settings, reduction="sum")(model, image, label)
    for name, term in terms.items():
        assert sums[name].item() == pytest.approx(3 * term.item(), rel=1e-12)


def test_aat_and_adv_aat(case):
    model, image, label, attacked, rows, hand = case
    distances = [
        2 * (1 - np.corrcoef(x * hand.rows[y], a * hand.rows[y])[0, 1]) for x, a, y in rows
    ]
    settings = {"weight": 2.0, "attack": fixed(attacked), "attribution": InputXGradient()}
    terms = AAT(**settings)(model, image, label)
    clean = [hand.cross_entropy(x, y) for x, _, y in rows]
    # the 1e-8 in a cosine's denominator makes it differ from 1
    check(terms, cross_entropy=clean, attribution=distances, rel=1e-5)
    terms = AdvAAT(**settings)(model, image, label)
    attacked_loss = [hand.cross_entropy(a, y) for _, a, y in rows]
    check(terms, cross_entropy=attacked_loss, attribution=distances, rel=1e-5)
    # a linear logit has the same gradient everywhere
    assert AAT(attack=fixed(attacked))(model, image, label)["attribution"].item() < 1e-7


def test_enhanced_regularizers(case):
    model, image, label, attacked, rows, hand = case
    cacr, wacr = [], []
    for x, a, y in rows:
        black = np.zeros_like(x)

        def runner_up(z, y=y):
            logits = hand.logits(z)
            logits[y] = -np.inf
            return hand.probability_gradient(z, logits.argmax())

        def true(z, y=y):
            return hand.probability_gradient(z, y)

        maps = [hand.path(g, black, a, 4).reshape(3, 49).sum(0) for g in (runner_up, true)]
        uniform = np.full(49, 1 / 49)
        n, t = (rel_entr(uniform, softmax(m)).sum() for m in maps)
        cacr.append(0.5 * (n - t))
        base = hand.path(true, black, x, 4)
        change = -hand.path(lambda z, y=y: hand.loss_gradient(z, y), x, a, 4)
        same = np.sign(base) == np.sign(change)
        wacr.append(0.5 * np.where(same, base * change, np.abs(change)).sum())
    objective = EnhancedRegularizers(weight=0.5, attack=fixed(attacked), steps=4)
    terms = objective(model, image, label)
    attacked_loss = [hand.cross_entropy(a, y) for _, a, y in rows]
    check(terms, cross_entropy=attacked_loss, wacr=wacr)
    assert terms["cacr"].item() == pytest.approx(np.mean(cacr), rel=1e-6)
    assert replace(objective, cacr=False)(model, image, label).keys() == {"cross_entropy", "wacr"}
    assert replace(objective, wacr=False)(model, image, label).keys() == {"cross_entropy", "cacr"}


def test_densities(case):
    model, image, label, _, rows, hand = case
    squares = {
        "marginal": [np.square(softmax(hand.logits(x)) @ hand.rows).sum() for x, _, _ in rows],
        "conditional": [np.square(hand.loss_gradient(x, y)).sum() for x, _, y in rows],
        "joint": [np.square(hand.rows[y]).sum() for _, _, y in rows],
    }
    clean = [hand.cross_entropy(x, y) for x, _, y in rows]
    for density, expected in squares.items():
        terms = MarginalDensity(weight=0.5, density=density)(model, image, label)
        check(terms, cross_entropy=clean, density=0.5 * np.array(expected))
        nearly = MarginalDensity(weight=0.5, density=density, form="taylor", step=1e-6)
        check(nearly(model, image, label), density=0.5 * np.array(expected), rel=1e-4)


def test_taylor_forms(case):
    model, image, label, _, rows, hand = case
    whole, held = [], []
    for x, _, _ in rows:
        p = softmax(hand.logits(x))
        ahead = hand.logits(x + 0.2 * (p @ hand.rows) / np.linalg.norm(p @ hand.rows))
        whole.append(((logsumexp(ahead) - logsumexp(hand.logits(x))) / 0.2) ** 2)
        held.append((p @ (ahead - hand.logits(x)) / 0.2) ** 2)
    settings = {"weight": 1.0, "step": 0.2}
    check(MarginalDensity(form="taylor", **settings)(model, image, label), density=whole)
    check(MarginalDensity(form="softmax_taylor", **settings)(model, image, label), density=held)


def test_the_gradient_of_each_density(tiny, batch):
    """METHODS of the marginal density: the softmax-weighted logit gradients; the conditional one's
    is minus the cross-entropy's, and the joint one's their sum."""
    image, label = batch
    tiny.eval()
    logits = tiny(image)
    each = [input_gradient(class_score(tiny, torch.full_like(label, c)), image) for c in range(3)]
    weights = logits.softmax(dim=1).T[:, :, None, None, None]
    marginal = input_gradient(lambda x: tiny(x).logsumexp(dim=1), image)
    torch.testing.assert_close((weights * torch.stack(each)).sum(0), marginal)
    conditional = input_gradient(
        lambda x: -torch.nn.functional.cross_entropy(tiny(x), label, reduction="none"), image
    )
    joint = input_gradient(class_score(tiny, label), image)
    torch.testing.assert_close(conditional, joint - marginal)


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
def test_input_gradient_penalty(case, norm):
    model, image, label, _, rows, hand = case
    slopes, norms = [], []
    for x, _, y in rows:
        g = hand.loss_gradient(x, y)
        largest = np.abs(g) == np.abs(g).max()
        v = {
            "l2": g / np.linalg.norm(g),
            "l1": np.sign(g) / np.sqrt(147),
            "linf": np.where(largest, np.sign(g), 0),
        }[norm]
        ahead = hand.cross_entropy(x + 0.1 * v, y)
        slopes.append((ahead - hand.cross_entropy(x, y)) / 0.1)
        norms.append(
            {
                "l2": np.linalg.norm(g),
                "l1": np.abs(g).sum() / np.sqrt(147),
                "linf": np.abs(g).max(),
            }[norm]
        )
    clean = [hand.cross_entropy(x, y) for x, _, y in rows]
    terms = InputGradientPenalty(weight=3.0, norm=norm, step=0.1)(model, image, label)
    check(terms, cross_entropy=clean, input_gradient=1.5 * np.square(slopes))
    terms = InputGradientPenalty(weight=3.0, norm=norm, step=1e-6)(model, image, label)
    assert terms["input_gradient"].item() == pytest.approx(
        1.5 * np.mean(np.square(norms)), rel=1e-4
    )


def test_paths_are_complete(tiny, batch):
    """Integrated gradients sum to the score's change; more points are closer."""
    image, label = batch
    tiny.eval()
    attacked = (image + 0.1 * torch.randn_like(image)).clamp(0, 1)
    change = IGNorm().loss_change(tiny, image, label, 400, "exact")(attacked).flatten(1).sum(1)
    losses = [
        torch.nn.functional.cross_entropy(tiny(x), label, reduction="none")
        for x in (attacked, image)
    ]
    torch.testing.assert_close(change, losses[0] - losses[1], rtol=0.01, atol=1e-3)
    probability = class_score(lambda x: tiny(x).softmax(dim=1), label)
    gradients = partial(input_gradients, lambda x: (probability(x),))
    (found,) = path_integrals(gradients, torch.zeros_like(image), image, steps=400)
    expected = probability(image) - probability(torch.zeros_like(image))
    torch.testing.assert_close(found.flatten(1).sum(1), expected, rtol=0.01, atol=1e-3)


def test_a_path_chooses_classes_at_its_end_or_at_every_point(tiny, batch):
    image, _ = batch
    seen = []

    def scores_at():
        def scores(x):
            seen.append(x)
            return (tiny(x).sum(dim=1),)

        return scores

    path_integrals(
        lambda point: input_gradients(scores_at(), point), torch.zeros_like(image), image, steps=4
    )
    for index, point in enumerate(seen):
        torch.testing.assert_close(point.detach(), (4 - index) / 4 * image)
    (ig,) = IntegratedGradients(steps=1)(lambda x: (tiny(x)[:, 0],), image)
    zero = torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(ig, input_x_gradient(class_score(tiny, zero), image))


def test_cacr_is_accurate_in_float32():
    """Its divergences are differences of logarithms that are orders of magnitude larger."""
    torch.manual_seed(0)
    maps = [1e-3 * torch.randn(2, 3, 40, 40, dtype=torch.float64) for _ in range(2)]
    naive = []
    for each in maps[::-1]:
        pixels = each.sum(1).flatten(1)
        uniform = np.full(1600, 1 / 1600)
        naive.append([rel_entr(uniform, softmax(row)).sum() for row in pixels.numpy()])
    expected = np.subtract(*naive)
    assert np.abs(expected).max() < 1e-6
    found = contrast(*(each.float() for each in maps))
    np.testing.assert_allclose(found, expected, rtol=0.05)
    np.testing.assert_allclose(contrast(*maps), expected, rtol=1e-6)


def test_wacr_adds_the_magnitude_of_opposing_changes():
    base = torch.tensor([2.0, 2.0, -2.0, -2.0, 0.0]).view(1, 1, 1, 5)
    change = torch.tensor([3.0, -3.0, -3.0, 3.0, 3.0]).view(1, 1, 1, 5)
    assert weighted_change(base, change).item() == 6 + 3 + 6 + 3 + 3
