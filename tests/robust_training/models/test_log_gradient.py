import json
import math
from dataclasses import replace

import pytest
import safetensors.torch
import timm
import torch
import yaml

from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from robust_training.models.log_gradient import LogGradient
from robust_training.models.saving import load_model, save_model
from robust_training.objectives import ART, InputGradientPenalty
from tests.helpers.attacks import constructible
from tests.helpers.commands import ROOT, tool
from wsol.heatmaps.heatmap import CAM, Gradient

WEIGHTS = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)


def some_images(count: int = 2, size: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64) * 0.9 + 0.1


def test_a_two_by_two_image_by_hand():
    grey = torch.tensor([[0.1, 0.2], [0.4, 0.3]], dtype=torch.float64)
    right, lower = LogGradient(offset=0.1)(grey.expand(1, 3, 2, 2))[0]
    expected = [[math.log(0.3 / 0.2), 0.0], [math.log(0.4 / 0.5), 0.0]]
    torch.testing.assert_close(right, right.new_tensor(expected))
    expected = [[math.log(0.5 / 0.2), math.log(0.4 / 0.3)], [0.0, 0.0]]
    torch.testing.assert_close(lower, lower.new_tensor(expected))


def test_colours_count_by_their_luminance():
    image = some_images()
    grey = (WEIGHTS * image).sum(dim=1, keepdim=True).expand_as(image)
    torch.testing.assert_close(LogGradient()(image), LogGradient()(grey))


@pytest.mark.parametrize("bits", [None, 3])
@pytest.mark.parametrize("factor", [0.01, 0.5, 0.99])
def test_the_strength_of_the_light_does_not_matter(bits, factor):
    front = LogGradient(offset=1e-12, bits=bits)
    torch.testing.assert_close(front(factor * some_images()), front(some_images()))


@pytest.mark.parametrize("bits", [None, 2, 8])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_image_gives_zeros(bits, value):
    assert not LogGradient(bits=bits)(torch.full((1, 3, 5, 5), value)).any()


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_the_levels_by_hand(bits):
    front = LogGradient(bits=bits, limit=0.8)
    found = front(some_images(4, 40)).unique()
    # sums of multiples of a step differ in the last digit
    levels = torch.linspace(-0.8, 0.8, 2**bits - 1, dtype=torch.float64)
    nearest = (found[:, None] - levels).abs().min(dim=1)
    assert nearest.values.max() < 1e-12
    assert set(nearest.indices.tolist()) == set(range(2**bits - 1))
    plain = LogGradient()(some_images(4, 40)).clamp(-0.8, 0.8)
    assert (front(some_images(4, 40)) - plain).abs().max() <= 0.8 / (2**bits - 2) + 1e-12


def test_derivatives_equal_the_clipped_differences():
    image = some_images().requires_grad_()

    def clipped(x):
        return LogGradient()(x).clamp(-1, 1)

    weight = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    found = []
    for function in (LogGradient(bits=2), clipped):
        (first,) = torch.autograd.grad((weight * function(image)).sum(), image, create_graph=True)
        found += [first, torch.autograd.grad(first.square().sum(), image)[0]]
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])
    assert found[1].any()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"offset": 0.0}, "offset"),
        ({"bits": 1}, "bits"),
        ({"bits": 9}, "bits"),
        ({"limit": 0.0}, "limit"),
    ],
)
def test_bad_settings_name_the_field(settings, word):
    with pytest.raises(ValueError, match=f"{word} of LogGradient"):
        LogGradient(**settings)


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=64, log_gradient=LogGradient(bits=3)).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    return model


def short(objective):
    """Return the objective with two steps of an attack and two points of a path."""
    known = vars(objective)
    fewer = {name: 2 for name in ("steps", "attack_steps") if name in known}
    if "attack" in known:
        fewer["attack"] = replace(objective.attack, steps=2)
    return replace(objective, **fewer)


@pytest.mark.parametrize(
    "objective",
    [
        *(kind() for kind in constructible() if kind is not InputGradientPenalty),
        ART(curvature="finite_difference", attack_curvature="finite_difference"),
    ],
)
def test_every_objective_trains_with_it(objective):
    torch.manual_seed(0)
    network = create_model("test_resnet", 3, image_size=32, log_gradient=LogGradient(bits=4))
    torch.nn.init.normal_(network.backbone.fc.weight)
    image, label = torch.rand(3, 3, 32, 32), torch.arange(3)
    terms = short(objective)(network, image, label)
    assert all(torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()
    assert next(network.backbone.parameters()).grad.any()


def test_a_forward_difference_is_refused_with_rounding(model):
    """A step of 0.01 changes no level, or changes a whole level."""
    with pytest.raises(ValueError, match="log_gradient with bits"):
        InputGradientPenalty()(model, torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
    network = Classifier(model.backbone, log_gradient=LogGradient())
    assert InputGradientPenalty()(network, torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))


def test_maps_have_the_size_of_the_image(model):
    image, label = torch.rand(2, 3, 64, 64), torch.tensor([1, 3])
    assert CAM().fits(model)
    for method in (CAM(), Gradient()):
        heatmaps = method(model, image, label)
        assert heatmaps.shape == (2, 64, 64)
        assert heatmaps.max() == 1


def test_the_light_does_not_change_the_logits_of_a_whole_network(model):
    image = some_images(2, 64).float()
    network = Classifier(model.backbone, log_gradient=LogGradient(offset=1e-12))
    torch.testing.assert_close(network(0.25 * image), network(image))


@pytest.mark.parametrize("last_stride", [None, 1])
def test_it_is_saved_in_the_folder(tmp_path, last_stride):
    torch.manual_seed(0)
    front = LogGradient(offset=0.02, bits=4, limit=0.5)
    saved = create_model(
        "test_resnet", 3, image_size=32, log_gradient=front, last_stride=last_stride
    ).eval()
    torch.nn.init.normal_(saved.backbone.fc.weight)
    save_model(saved, tmp_path / "best")
    image = torch.rand(2, 3, 32, 32)
    loaded = load_model(tmp_path / "best")
    assert loaded.log_gradient == front
    assert loaded.last_stride == last_stride
    torch.testing.assert_close(loaded(image), saved(image))
    assert "bits=4" in (tmp_path / "best" / "README.md").read_text()
    if last_stride is None:  # timm opens the backbone
        plain = timm.create_model(f"local-dir:{tmp_path / 'best'}", pretrained=True).eval()
        torch.testing.assert_close(plain(front(image)), saved(image))


def test_a_folder_with_the_older_name_of_the_setting_opens(tmp_path, model):
    save_model(model, tmp_path / "best")
    file = tmp_path / "best" / "config.json"
    config = json.loads(file.read_text())
    config["front"] = config.pop("log_gradient")
    file.write_text(json.dumps(config))
    assert load_model(tmp_path / "best").log_gradient == model.log_gradient


def test_a_saved_front_end_with_unknown_settings_is_refused(tmp_path, model):
    save_model(model, tmp_path / "best")
    file = tmp_path / "best" / "config.json"
    config = json.loads(file.read_text())
    config["log_gradient"]["colour"] = "red"
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot build the model .*'colour'"):
        load_model(tmp_path / "best")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_weights_for_other_channels_are_refused(tmp_path, name):
    front = LogGradient()
    rgb, two = tmp_path / "rgb.safetensors", tmp_path / "two.safetensors"
    safetensors.torch.save_file(timm.create_model(name).state_dict(), rgb)
    safetensors.torch.save_file(timm.create_model(name, in_chans=2).state_dict(), two)
    with pytest.raises(ValueError, match="3 channels and this model's backbone takes 2 .*scratch"):
        create_model(name, 3, weights=rgb, log_gradient=front)
    with pytest.raises(ValueError, match="2 channels and this model's backbone takes 3"):
        create_model(name, 3, weights=two)
    create_model(name, 3, weights=two, log_gradient=front)
    with pytest.raises(ValueError, match="timm's weights are for RGB"):
        create_model(name, 3, pretrained=True, log_gradient=front)


def test_a_front_end_takes_no_normalised_images():
    with pytest.raises(ValueError, match="leave mean and std"):
        Classifier(torch.nn.Identity(), (0.5,) * 3, log_gradient=LogGradient())


@pytest.mark.parametrize(("name", "value"), [(".bits", 3), ("", "{bits: 3}")])
def test_one_option_of_the_tool_puts_it_in_front(name, value):
    config = ROOT / "configs" / "toy_standard.yaml"
    settings = ("--config", config, "--data.root", "d", "--output", "o", "--print_config")
    status, text, error = tool("train.py", *settings, f"--model.log_gradient{name}", value)
    assert status == 0, error
    assert yaml.safe_load(text)["model"]["log_gradient"] == {
        "offset": 0.01,
        "bits": 3,
        "limit": 1.0,
    }
