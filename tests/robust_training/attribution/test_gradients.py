import captum.attr
import pytest
import torch

from robust_training.attribution.explanation import (
    InputGradient,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    input_x_gradient,
    integrated_gradients,
    smoothgrad,
)
from robust_training.attribution.gradients import input_gradient, input_gradients
from robust_training.attribution.scores import (
    class_and_runner_up_scores,
    class_score,
    cross_entropy_score,
    single,
)


def test_input_gradient_equals_captum(tiny, batch):
    image, label = batch
    tiny.eval()
    expected = captum.attr.Saliency(tiny).attribute(image, target=label, abs=False)
    torch.testing.assert_close(input_gradient(class_score(tiny, label), image), expected)


@pytest.mark.parametrize("steps", [2, 7])
def test_integrated_gradients_equal_captum(tiny, batch, steps):
    image, label = batch
    tiny.eval()
    expected = captum.attr.IntegratedGradients(tiny).attribute(
        image, target=label, n_steps=steps, method="riemann_right"
    )
    actual = integrated_gradients(class_score(tiny, label), image, steps=steps)
    torch.testing.assert_close(actual, expected)


def test_integrated_gradients_are_complete(tiny, batch):
    image, label = batch
    tiny.eval()
    score = cross_entropy_score(tiny, label)
    baseline = torch.full_like(image, 0.3)
    total = integrated_gradients(score, image, baseline, steps=4000).sum(dim=(1, 2, 3))
    torch.testing.assert_close(total, score(image) - score(baseline), rtol=0, atol=1e-4)


def test_functions_and_settings_give_the_same_attribution(tiny, batch):
    """Defaults are equal, and the noise does not depend on the global generator."""
    image, label = batch
    score = class_score(tiny.eval(), label)
    for function, settings in (
        (input_gradient, InputGradient()),
        (input_x_gradient, InputXGradient()),
        (integrated_gradients, IntegratedGradients()),
        (smoothgrad, SmoothGrad()),
    ):
        (expected,) = settings(single(score), image)
        for seed in (0, 1):
            torch.manual_seed(seed)
            torch.testing.assert_close(function(score, image), expected, rtol=0, atol=0)


def test_smoothgrad_of_a_linear_score_is_its_gradient(batch):
    image, _ = batch
    weight = torch.randn(3, 7, 7, dtype=torch.float64)
    gradient = smoothgrad(lambda x: (x * weight).sum(dim=(1, 2, 3)), image, samples=3)
    torch.testing.assert_close(gradient, weight.expand_as(image))


@pytest.mark.parametrize("curvature", ["exact", "finite_difference"])
def test_two_scores_share_one_forward_pass(tiny, batch, curvature):
    image, label = batch
    calls = []
    scores = class_and_runner_up_scores(tiny, label)

    def counted(x):
        calls.append(len(x))
        return scores(x)

    true, runner_up = input_gradients(counted, image, create_graph=True, curvature=curvature)
    assert calls == [3]
    tiny.eval()
    logits = tiny(image)
    others = logits.scatter(1, label[:, None], -torch.inf).argmax(1)
    tiny.train()
    expected = input_gradient(class_score(tiny, others), image)
    torch.testing.assert_close(runner_up.detach(), expected)
    torch.testing.assert_close(true.detach(), input_gradient(class_score(tiny, label), image))


def test_the_runner_up_stays_the_same():
    logits = [torch.tensor([[5.0, 1.0, 2.0]]), torch.tensor([[5.0, 3.0, 2.0]])]
    scores = class_and_runner_up_scores(lambda image: logits[int(image)], torch.tensor([0]))
    assert scores(torch.tensor(0))[1].item() == 2
    assert scores(torch.tensor(1))[1].item() == 2


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda x: torch.ones(len(x), dtype=x.dtype, requires_grad=True), "does not depend"),
        (lambda x: torch.ones(len(x), dtype=x.dtype), "does not depend"),
        (lambda x: x.sum(), "one number per image"),
    ],
)
@pytest.mark.parametrize("curvature", ["exact", "finite_difference"])
def test_scores_that_have_no_gradient_are_refused(batch, score, message, curvature):
    with pytest.raises(ValueError, match=message):
        input_gradient(score, batch[0], create_graph=True, curvature=curvature)


def test_inference_mode_is_named(tiny, batch):
    image, label = batch
    with torch.inference_mode(), pytest.raises(ValueError, match="no gradients in torch.inference"):
        input_gradient(class_score(tiny, label), image)


def test_bad_arguments_are_refused(tiny, batch):
    image, label = batch
    score = class_score(tiny, label)
    with pytest.raises(ValueError, match="curvature must be"):
        input_gradient(score, image, curvature="finite")
    with pytest.raises(ValueError, match="at least 1 step"):
        integrated_gradients(score, image, steps=0)
    with pytest.raises(ValueError, match="samples of at least 1"):
        smoothgrad(score, image, samples=0)
    one_class = class_and_runner_up_scores(lambda x: x.sum((1, 2, 3))[:, None], label * 0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        one_class(image)
