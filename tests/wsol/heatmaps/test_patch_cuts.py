"""TokenCut and LOST, on features with a known cut and on small random Vision Transformers."""

import numpy as np
import pytest
import timm
import torch

from robust_training.models.creating import wrap_model
from wsol.heatmaps.heatmap import min_max
from wsol.heatmaps.methods import find_method
from wsol.heatmaps.patch_cuts import LOST, TokenCut
from wsol.heatmaps.patch_tokens import patch_keys

OBJECT = np.zeros((6, 8), bool)
OBJECT[1:4, 2:5] = True
LABELS = torch.tensor([0, 1])


def features(inside, outside, noise=0.05):
    """Features of the patches of OBJECT and of all others, with noise."""
    rng = np.random.default_rng(0)
    clean = np.where(OBJECT[..., None], inside, outside)
    return clean + noise * rng.normal(size=clean.shape)


@pytest.mark.parametrize("method", [TokenCut(), LOST()], ids=["tokencut", "lost"])
def test_the_smaller_region_of_like_features_is_the_object(method):
    found = method.cut(features([1, 0, 0, 0], [-0.2, 1, 0, 0]))
    assert found.shape == OBJECT.shape
    assert found[OBJECT].min() > found[~OBJECT].max() + 0.1 * np.ptp(found)


def test_tokencut_is_the_eigenvector_of_the_normalized_cut():
    """Two complete graphs with weak links: the eigenvector has one value in each part."""
    found = TokenCut().cut(features([1, 0], [0, 1], noise=0))
    for part in (found[OBJECT], found[~OBJECT]):
        np.testing.assert_allclose(part, part[0], rtol=1e-6)
    # orthogonal to the constant vector, weighted by the degrees
    inside, outside = OBJECT.sum(), (~OBJECT).sum()
    degrees = inside + 1e-5 * outside, outside + 1e-5 * inside
    ratio = -(outside * degrees[1]) / (inside * degrees[0])
    assert found[OBJECT][0] / found[~OBJECT][0] == pytest.approx(ratio, rel=1e-4)
    assert found[OBJECT][0] > 0 > found[~OBJECT][0]


def test_lost_by_hand():
    """Two regions are like the seed; only the one that touches it belongs to the object."""
    row = np.array([[1, 0], [2, 0], [-1, 1], [-1, 2], [-1, 1], [1, -0.5]], float)[None]
    # positive correlations with others: 2, 2, 2, 2, 2, 2; the first is the seed
    similarity = row[0] @ row[0].T
    degrees = ((similarity > 0) & ~np.eye(6, dtype=bool)).sum(axis=1)
    assert degrees.tolist() == [2] * 6
    found = LOST().cut(row)
    expected = similarity[[0, 1, 5]].sum(axis=0)
    np.testing.assert_allclose(found[0], [expected[0], expected[1], 0, 0, 0, 0])
    one = LOST(patches=1).cut(row)
    np.testing.assert_allclose(one[0], [1, 2, 0, 0, 0, 0])


@pytest.mark.parametrize("method", [TokenCut(), LOST()], ids=["tokencut", "lost"])
def test_features_without_an_object_give_finite_maps(method):
    for each in (np.zeros((3, 3, 2)), np.ones((3, 3, 2)), np.ones((1, 1, 2))):
        found = method.cut(each)
        assert found.shape == each.shape[:2]
        assert np.isfinite(found).all()
    assert not method._cut_finite(np.full((3, 3, 2), np.nan)).any()


NETWORKS = {
    "vit_small_patch16_224.dino": (16, 4),
    "vit_small_patch14_dinov2.lvd142m": (14, 4),
    "vit_small_patch16_dinov3": (16, 4),  # rotations in place of position embeddings, registers
    "test_vit2": (16, 3),  # no class token, a register, images of any shape
}


def small(name, **options):
    """A random network of two thin blocks."""
    torch.manual_seed(0)
    size = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    network = timm.create_model(name, num_classes=3, **size, **options)
    return wrap_model(network, image_size=options.get("img_size")).eval()


@pytest.mark.parametrize(("name", "patch", "rows"), [(n, *each) for n, each in NETWORKS.items()])
def test_maps_of_small_vision_transformers(name, patch, rows):
    columns = 4
    model = small(name, img_size=columns * patch)
    photos = torch.rand(2, 3, rows * patch, columns * patch)
    keys = []
    attention = model.backbone.blocks[-1].attn
    handle = attention.qkv.register_forward_hook(
        lambda module, inputs, qkv: keys.append(qkv.chunk(3, dim=2)[1])
    )
    with torch.no_grad():
        model(photos)
    handle.remove()
    prefix = model.backbone.num_prefix_tokens
    expected = keys[0][:, prefix:].reshape(2, rows, columns, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(patch_keys(model, photos), expected)
    for method in (TokenCut(), LOST()):
        assert method.fits(model)
        found = method(model, photos, LABELS)
        assert (found.shape, found.dtype) == ((2, *photos.shape[2:]), float)
        assert (found.min(), found.max()) == (0, 1)
        np.testing.assert_array_equal(found, method(model, photos, LABELS.flip(0)))
        grid = method.cut(expected[1].permute(1, 2, 0).double().numpy())
        enlarged = torch.nn.functional.interpolate(
            torch.from_numpy(grid)[None, None], tuple(photos.shape[2:]), mode="bilinear"
        )
        np.testing.assert_allclose(found[1], min_max(enlarged[0, 0].numpy()), atol=1e-4)


def test_networks_without_patch_tokens_do_not_fit(network):
    for name in ("tokencut", "lost"):
        method = find_method(name)
        assert not method.fits(network)
        with pytest.raises(ValueError, match="test_resnet has no patch tokens"):
            method(network, torch.rand(2, 3, 32, 32), LABELS)
    assert not TokenCut().fits(small("cait_xxs24_224"))
