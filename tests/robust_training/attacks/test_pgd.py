import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_training.attacks.pgd import PGD
from robust_training.attribution.scores import cross_entropy_score


def linear(weight):
    return lambda image: (image * weight).sum(dim=(1, 2, 3))


def test_linf_finds_the_corner_of_the_ball():
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    image = torch.full((2, 3, 4, 4), 0.5)
    attacked = PGD(eps=0.1, step_size=0.03, steps=10)(linear(weight), image)
    torch.testing.assert_close(attacked, image + 0.1 * weight.sign())


def test_l2_finds_the_point_along_the_gradient():
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    image = torch.full((2, 3, 4, 4), 0.5)
    attack = PGD(eps=0.2, step_size=0.3, steps=5, random_start=False, norm="l2")
    expected = image + 0.2 * weight / weight.norm()
    torch.testing.assert_close(attack(linear(weight), image), expected)


@settings(max_examples=30, deadline=None)
@given(
    eps=st.floats(0, 0.6, allow_subnormal=False),
    step=st.floats(0.001, 1.0),
    steps=st.integers(0, 4),
    norm=st.sampled_from(["linf", "l2"]),
    seed=st.integers(0, 1000),
)
def test_every_image_stays_in_its_ball_and_range(eps, step, steps, norm, seed):
    torch.manual_seed(seed)
    image = torch.rand(2, 3, 5, 5)
    weight = torch.randn(3, 5, 5)
    attacked = PGD(eps, step, steps, norm=norm)(linear(weight), image)
    change = (attacked - image).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= eps + 1e-5).all()
    assert attacked.min() >= 0
    assert attacked.max() <= 1


def test_the_attack_increases_the_score_and_needs_no_weight_gradient(tiny, batch):
    image, label = batch
    tiny.eval()
    score = cross_entropy_score(tiny, label)
    attacked = PGD(eps=0.1, step_size=0.03, steps=10)(score, image)
    assert (score(attacked) > score(image)).all()
    assert all(parameter.grad is None for parameter in tiny.parameters())
    assert not attacked.requires_grad


def test_the_same_generator_gives_the_same_attack(tiny, batch):
    image, label = batch
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(PGD(steps=2)(cross_entropy_score(tiny.eval(), label), image))
    assert torch.equal(*runs)


def test_the_l2_start_fills_the_ball():
    torch.manual_seed(0)
    start = PGD(eps=0.4, norm="l2").start(torch.full((500, 3, 1, 1), 0.5))
    radius = (start - 0.5).flatten(1).norm(dim=1) / 0.4
    assert 0.7 < radius.pow(3).median() / 0.5 < 1.3  # radius^dimension is uniform


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"eps": -1}, "eps"),
        ({"steps": -1}, "steps"),
        ({"step_size": 0}, "step_size"),
        ({"norm": "l1"}, "norm"),
    ],
)
def test_bad_settings_name_the_field(arguments, word):
    with pytest.raises(ValueError, match=word):
        PGD(**arguments)
