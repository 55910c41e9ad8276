"""The minimum cut, against SciPy's maximum flow, all cuts of tiny images, and OpenCV's energy."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_flow

from wsol.boxes.min_cut import min_cut

PAIRS = {  # the first and the second pixel of all pairs, and their distance
    "right": ((slice(None), slice(1, None)), (slice(None), slice(None, -1)), 1),
    "down": ((slice(1, None), slice(None)), (slice(None, -1), slice(None)), 1),
    "falling": ((slice(1, None), slice(1, None)), (slice(None, -1), slice(None, -1)), 2**0.5),
    "rising": ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None)), 2**0.5),
}


def weights(pixels, smoothness):
    """Costs of all pairs of neighbours in different regions, by the formula of grabCut."""
    pixels = np.asarray(pixels, float)
    squares = {
        name: np.square(pixels[one] - pixels[other]).sum(-1)
        for name, (one, other, _) in PAIRS.items()
    }
    every = np.concatenate([each.ravel() for each in squares.values()])
    beta = 1 / (2 * every.mean()) if every.sum() else 0
    return {
        name: smoothness / PAIRS[name][2] * np.exp(-beta * each) for name, each in squares.items()
    }


def energy(pixels, cost, smoothness, foreground):
    total = np.where(foreground, np.maximum(-cost, 0), np.maximum(cost, 0)).sum()
    for name, weight in weights(pixels, smoothness).items():
        one, other, _ = PAIRS[name]
        total += weight[foreground[one] != foreground[other]].sum()
    return total


def random_image(seed, height, width, scale):
    rng = np.random.default_rng(seed)
    cost = rng.normal(0, scale, (height, width))
    cost[rng.random((height, width)) < 0.3] = 0
    return rng.integers(0, 256, (height, width, 3)), cost


@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    scale=st.sampled_from([0.1, 1.0, 5.0, 20.0]),
    smoothness=st.sampled_from([0.0, 0.5, 5.0, 50.0]),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_the_energy_is_scipys_maximum_flow(seed, height, width, scale, smoothness):
    pixels, cost = random_image(seed, height, width, scale)
    places = np.arange(height * width).reshape(height, width)
    source, sink = height * width, height * width + 1
    starts, ends, capacities = [], [], []
    for name, weight in weights(pixels, smoothness).items():
        one, other = (places[part].ravel() for part in PAIRS[name][:2])
        starts += [*one, *other]
        ends += [*other, *one]
        capacities += [*weight.ravel(), *weight.ravel()]
    starts += [*np.full(cost.size, source), *places.ravel()]
    ends += [*places.ravel(), *np.full(cost.size, sink)]
    capacities += [*np.maximum(cost, 0).ravel(), *np.maximum(-cost, 0).ravel()]
    whole = np.round(1e5 * np.array(capacities)).astype(np.int32)
    graph = csr_matrix((whole, (starts, ends)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph, source, sink).flow_value / 1e5
    found = energy(pixels, cost, smoothness, min_cut(pixels, cost, smoothness))
    assert found == pytest.approx(flow, abs=len(whole) * 1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_no_other_cut_of_a_tiny_image_is_better(seed):
    pixels, cost = random_image(seed, 3, 3, 2.0)
    every = itertools.product([False, True], repeat=9)
    best = min(energy(pixels, cost, 1.5, np.reshape(each, (3, 3))) for each in every)
    found = energy(pixels, cost, 1.5, min_cut(pixels, cost, 1.5))
    assert found == pytest.approx(best, abs=1e-9)


def test_without_smoothness_each_pixel_takes_the_cheaper_region():
    pixels, cost = random_image(0, 20, 30, 1.0)
    np.testing.assert_array_equal(min_cut(pixels, cost, 0.0), cost > 0)


def test_an_image_of_one_colour_and_large_images():
    cost = np.full((70, 90), -1.0)
    cost[20:50, 30:60] = 1.0
    cost[30, 40] = -1.0  # a hole, which costs more than it saves
    found = min_cut(np.full((70, 90, 3), 7), cost, 1.0)
    assert found[30, 40]
    assert 870 < found.sum() <= 900  # corners are cut off
    assert not found[:20].any()


def test_the_energy_is_not_above_opencvs():
    """With costs that fix the object's middle and the border only, the energy is the length of the
    boundary. OpenCV's segment is the object, and no cut of ours may be longer than its boundary."""
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 60), bool)
    mask[15:42, 20:48] = True
    pixels = np.where(mask[..., None], (200, 60, 60), (60, 90, 160)) + rng.normal(
        0, 12, (60, 60, 3)
    )
    pixels = pixels.clip(0, 255).astype(np.uint8)
    kinds = np.full((60, 60), cv2.GC_PR_BGD, np.uint8)
    kinds[:2] = kinds[-2:] = kinds[:, :2] = kinds[:, -2:] = cv2.GC_BGD
    kinds[22:36, 27:41] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    cv2.grabCut(pixels, kinds, None, *np.zeros((2, 1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    opencv = (kinds & 1).astype(bool)
    np.testing.assert_array_equal(opencv, mask)
    cost = np.zeros((60, 60))
    cost[22:36, 27:41] = 500
    cost[:2] = cost[-2:] = cost[:, :2] = cost[:, -2:] = -500
    found = min_cut(pixels, cost, 50.0)  # the boundary alone
    assert energy(pixels, cost, 50.0, found) <= energy(pixels, cost, 50.0, opencv) + 1e-9
