"""ART's formula. test_objectives.py tests all objectives together."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robust_training.attacks.pgd import PGD
from robust_training.attribution.anchors import BorderContrast, Edges, Image
from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from robust_training.objectives import ART, Standard
from robust_training.objectives.art import attribution_loss
from tests.helpers.attacks import fixed


def test_art_without_weight_and_attack_equals_standard(tiny, batch):
    image, label = batch
    art = ART(weight=0.0, attack=PGD(eps=0.0, steps=0))
    terms = art(tiny.eval(), image, label)
    assert terms["attribution"].item() == 0
    torch.testing.assert_close(
        terms["cross_entropy"], Standard()(tiny, image, label)["cross_entropy"]
    )


def test_attribution_loss_by_hand():
    """One pair in the plane with known cosines; the worse candidate counts."""
    anchor = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    true = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # distances 0 and 1 - sqrt(.5): the worse counts
    runner_up = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])  # distances 1 and 2: the closer counts
    expected = math.log1p(math.exp((1 - math.sqrt(0.5)) - 1))
    assert attribution_loss(anchor, true, runner_up, 1).item() == pytest.approx(expected, rel=1e-6)


def test_mining_stays_within_a_pair():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.rand(8, 5, generator=generator) for _ in range(3)]
    each = [attribution_loss(*(r[[i, i + 4]] for r in rows), 1) for i in range(4)]
    torch.testing.assert_close(attribution_loss(*rows, 4), torch.stack(each).mean())


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_without_the_pair_the_term_is_that_of_the_attacked_images(tiny, batch, batch_norm):
    """Equal to the pair of each attacked image and an equal copy, with half of the rows."""
    image, label = batch
    attacked = (image + 0.01).clamp(0, 1)
    modes = ("attack_batch_norm", "term_batch_norm", "cross_entropy_batch_norm")
    art = ART(attack=fixed(attacked), pair=False, **dict.fromkeys(modes, batch_norm))
    rows = []
    hook = tiny.backbone.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    alone = art(tiny, image, label)["attribution"]
    hook.remove()
    assert set(rows) == {len(image)}
    pair = replace(art, pair=True)(tiny, attacked, label)["attribution"]
    torch.testing.assert_close(alone, pair)
    parameters = list(tiny.backbone.parameters())
    both = [torch.autograd.grad(term, parameters, allow_unused=True) for term in (alone, pair)]
    for one, two in zip(*both, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("triplet", [True, False])
@pytest.mark.parametrize("anchor", [Image(), BorderContrast(0.2), Edges()])
def test_a_linear_model_attributes_by_its_weights(batch, anchor, triplet):
    """ART by hand on a linear classifier: its gradients are rows of its weight matrix."""
    image, label = batch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(147, 3)).double()
    model = Classifier(net, (0.5,) * 3, (0.2,) * 3).double()
    attacked = (image + 0.01).clamp(0, 1)
    art = ART(weight=2.0, attack=fixed(attacked), anchor=anchor, triplet=triplet)
    terms = art(model, image, label)
    weight = net[1].weight.view(3, 3, 7, 7).abs().mean(1).flatten(1)
    expected = 0.0
    for index in range(3):
        for source in (image, attacked):
            target = anchor((source[index : index + 1] - 0.5) / 0.2)[0]
            row = target.abs().mean(0).flatten()
            candidates = []
            for copy in (image, attacked):
                logits = model(copy[index : index + 1])[0].clone()
                logits[label[index]] = -torch.inf
                pair = weight[torch.stack([label[index], logits.argmax()])]
                candidates.append([1 - torch.cosine_similarity(row, v, dim=0) for v in pair])
            (p1, n1), (p2, n2) = candidates
            negative = min(n1, n2) if triplet else 1.0
            expected += 2.0 / 6 * torch.log1p(torch.exp(max(p1, p2) - negative))
    assert terms["attribution"].item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(model(attacked), label))


@pytest.mark.parametrize("mode", ["update", "batch", "running"])
def test_batch_norm_of_the_attack_is_a_setting(tiny, batch, mode):
    image, label = batch
    ART(attack_batch_norm=mode).attack_images(tiny, image, label)
    # one pass for the support and three steps when running statistics follow
    assert tiny.backbone.bn.num_batches_tracked.item() == (4 if mode == "update" else 0)


@pytest.mark.parametrize("curvature", ["exact", "finite_difference"])
@pytest.mark.parametrize("mode", ["update", "batch", "running"])
def test_batch_norm_of_the_term_is_a_setting(tiny, batch, mode, curvature):
    """In mode "running" the term and its gradient are those of the network in evaluation, although
    the cross-entropy's pass updates the running statistics before the backward pass."""
    image, label = batch

    def term_and_gradient(model, **settings):
        attack = fixed(image + 0.01)
        art = ART(attack=attack, attack_batch_norm="batch", beta=5.0, **settings)
        term = art(model, image, label)["attribution"]
        return term, *torch.autograd.grad(term, model.backbone.conv1.weight)

    other = deepcopy(tiny).train(mode != "running")
    expected = term_and_gradient(other)
    found = term_and_gradient(tiny, curvature=curvature, term_batch_norm=mode)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    # the pass of the cross-entropy always counts
    assert tiny.backbone.bn.num_batches_tracked.item() == (2 if mode == "update" else 1)
    assert tiny.backbone.bn.training
    assert tiny.backbone.bn.track_running_stats


def test_running_statistics_in_every_pass_train_the_network_as_it_is_evaluated(tiny, batch):
    image, label = batch
    passes = ("attack_batch_norm", "term_batch_norm", "cross_entropy_batch_norm")
    art = ART(attack=PGD(0.01, 0.01, 1), beta=5.0, **dict.fromkeys(passes, "running"))

    def gradients(model):
        torch.manual_seed(0)
        sum(art(model, image, label).values()).backward()
        return [each.grad for each in model.parameters()]

    expected = gradients(deepcopy(tiny).eval())
    torch.testing.assert_close(gradients(tiny.train()), expected, rtol=1e-6, atol=1e-9)
    assert tiny.backbone.bn.num_batches_tracked.item() == 0


@pytest.mark.parametrize("triplet", [True, False])
def test_the_attack_increases_the_loss_by_the_support_only(tiny, batch, triplet):
    image, label = batch
    tiny.eval()
    art = ART(attack=PGD(eps=0.05, step_size=0.02, steps=5), top_k=10, beta=5.0, triplet=triplet)
    torch.manual_seed(0)
    start = art.attack.start(image)
    torch.manual_seed(0)
    attacked = art.attack_images(tiny, image, label)

    def loss(images):
        art = ART(attack=fixed(images), beta=5.0, weight=1.0, triplet=triplet)
        terms = art(tiny, images, label)
        return terms["attribution"].item()

    assert loss(attacked) > loss(start)


def test_a_new_head_of_zeros_does_not_explode():
    """All gradients are zero at the first step. A plain cosine has a gradient of 1e8 there."""
    torch.manual_seed(0)
    model = create_model("resnet10t", 4, image_size=32)
    image, label = torch.rand(4, 3, 32, 32), torch.arange(4)
    terms = ART()(model, image, label)
    assert terms["cross_entropy"].item() == pytest.approx(math.log(4), rel=1e-6)
    sum(terms.values()).backward()
    norm = sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None).sqrt()
    assert 0 < norm < 100


@pytest.mark.parametrize("triplet", [True, False])
@pytest.mark.parametrize("form", ["signed", "magnitude"])
def test_the_value_of_an_untrained_term_is_known_if_it_is_ln_2(form, triplet):
    """Without the triplet, absolute values are positive and so have a cosine above 0."""
    torch.manual_seed(0)
    image, label = torch.rand(64, 3, 7, 7).double(), torch.arange(64) % 3
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(147, 3)).double()
    model = Classifier(net, (0.5,) * 3, (0.2,) * 3).double()
    art = ART(weight=1.0, form=form, triplet=triplet, attack=fixed(image))
    term = art(model, image, label)["attribution"].item()
    known = art.untrained_terms().get("attribution")
    assert (known is not None) == (abs(term - math.log(2)) < 0.03)
