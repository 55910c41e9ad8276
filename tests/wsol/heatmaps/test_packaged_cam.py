"""Methods of pytorch-grad-cam, beside the package used by itself, and attention rollout."""

import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import numpy as np
import pytest
import torch

from robust_training.models.creating import create_model
from wsol import Localizer
from wsol.heatmaps.attention_rollout import AttentionRollout
from wsol.heatmaps.heatmap import min_max
from wsol.heatmaps.methods import find_method, with_baselines

NAMES = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "layercam": "LayerCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}
LABELS = torch.tensor([1, 2])


def transformer(name):
    torch.manual_seed(0)
    model = create_model(name, 3, image_size=64).eval()
    torch.nn.init.normal_(model.backbone.head.weight)
    return model


@pytest.fixture(scope="module")
def vit():
    return transformer("test_vit")


@pytest.fixture(scope="module")
def photos():
    """Wider than high, so that rows and columns cannot be confused."""
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("pytorch_grad_cam")


def alone(package, kind, model, layer, photos, **options):
    cam = getattr(package, kind)(model, [layer], **options)
    targets = [package.utils.model_targets.ClassifierOutputTarget(label) for label in LABELS]
    return min_max(cam(photos, targets).astype(np.float64))


@pytest.mark.parametrize("name", NAMES)
def test_a_convolutional_network_has_the_package_s_maps(name, package, network, photos, capfd):
    copied = deepcopy(network)
    expected = alone(package, NAMES[name], copied, copied.backbone.layer4, photos)
    capfd.readouterr()
    method = find_method(name)
    assert method.fits(network)
    last = deepcopy(network).to(memory_format=torch.channels_last)
    for model in (network, last):
        found = method(model, photos, LABELS)
        assert (found.shape, found.dtype, found.min(), found.max()) == ((2, 48, 64), float, 0, 1)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert capfd.readouterr() == ("", "")  # no progress bars


@pytest.mark.parametrize("name", NAMES)
def test_a_vision_transformer_has_the_package_s_maps(name, package, vit, photos):
    copied = deepcopy(vit)
    options = {"reshape_transform": lambda x: x[:, 1:].reshape(-1, 3, 4, 64).permute(0, 3, 1, 2)}
    if name == "ablationcam":
        options["ablation_layer"] = package.AblationLayerVit()
    expected = alone(
        package, NAMES[name], copied, copied.backbone.blocks[-1].norm1, photos, **options
    )
    assert find_method(name).fits(vit)
    np.testing.assert_allclose(find_method(name)(vit, photos, LABELS), expected, atol=1e-4)


def test_the_network_stays_as_it_is_also_for_other_threads(package, vit, photos):
    before = [*map(str, vit.modules())]
    methods = [find_method(name) for name in ("ablationcam", "gradcam", "attention rollout")] * 2
    serial = [method(vit, photos, LABELS) for method in methods[:3]]
    with ThreadPoolExecutor(3) as threads:
        found = [*threads.map(lambda each: each(vit, photos, LABELS), methods)]
    np.testing.assert_allclose(found, serial * 2, atol=1e-5)
    assert [*map(str, vit.modules())] == before
    assert all(each.grad is None and each.requires_grad for each in vit.parameters())
    assert not any(each._forward_hooks for each in vit.modules())


def test_a_missing_package_is_one_line(monkeypatch, network):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    method = find_method("gradcam")  # reads no package, so names in files need none
    assert list(with_baselines(["gradcam++", "refined layercam"]))[2:] == [
        "centred box",
        "refined centred box",
    ]
    with pytest.raises(ValueError, match=r"needs the package grad-cam: pip install 'wsol\[cam\]'"):
        method.fits(network)
    with pytest.raises(ValueError, match="needs the package grad-cam"):
        Localizer(network, method="gradcam")


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_attention_rollout_multiplies_the_attention_of_all_blocks(name, photos):
    """The second network has no class token, but a register."""
    model = transformer(name)
    found = AttentionRollout()(model, photos, LABELS)
    attention = []

    def remember(module, inputs, qkv):
        query, key, _ = qkv.reshape(2, 13, 3, 2, 32).permute(2, 0, 3, 1, 4)
        attention.append((query @ key.transpose(2, 3) / 32**0.5).softmax(3).mean(1))

    for block in model.backbone.blocks:
        block.attn.qkv.register_forward_hook(remember)
    with torch.no_grad():
        model(photos)
    product = torch.eye(13)
    for each in attention:
        product = (0.5 * each + 0.5 * torch.eye(13)) @ product
    rows = product[:, 0] if name == "test_vit" else product[:, 1:].mean(1)
    grid = rows[:, 1:].reshape(2, 1, 3, 4)
    expected = torch.nn.functional.interpolate(grid, (48, 64), mode="bilinear")[:, 0].numpy()
    np.testing.assert_allclose(found, min_max(expected), atol=1e-4)


def test_attention_rollout_needs_patch_tokens(network, photos):
    assert not AttentionRollout().fits(network)
    with pytest.raises(ValueError, match="test_resnet has no patch tokens"):
        AttentionRollout()(network, photos, LABELS)
