"""The region of similar colours around a heatmap's largest values.

It is grabCut (Rother et al., SIGGRAPH 2004) with one cut, and from coarse to fine: the colour
models and the cut of a small image say where the region is, and a second cut within a band around
its boundary says where it ends. This takes a third of the time of OpenCV's grabCut with one
iteration, and a seventh of that with three. A small image needs the last cut only. The constants
were chosen on CUB's validation images (docs/experiments/heatmaps.md).
"""

import cv2
import numpy as np

from wsol.boxes.min_cut import min_cut

_SIDE = 64  # pixels of the small image's longer side
_COARSE, _FINE = 8.0, 25.0  # smoothness of the first and of the last cut; OpenCV has 50
_BAND = 2  # pixels of the small image on both sides of the boundary
_BORDER = 1 / 40  # of the image's side is certain background
_COMPONENTS = 5  # Gaussians in each of OpenCV's colour models


def segment(
    pixels: np.ndarray, heatmap: np.ndarray, fraction: float, sure: float = 0.2
) -> np.ndarray | None:
    """Segments an image from a heatmap's largest values.

    Args:
        pixels: uint8 (H,W,3).
        heatmap: (H,W), 0 or more.
        fraction: Fraction of pixels, those with the largest values, that start as probable
            foreground.
        sure: Fraction of these pixels that are certain foreground.

    Returns:
        bool (H,W): the foreground. None if the map is 0 everywhere, or if its largest values lie
        only in the border.
    """
    size = pixels.shape[1::-1]
    shrink = min(1.0, _SIDE / max(size))
    small_size = tuple(max(1, round(shrink * each)) for each in size)
    small, small_heatmap = (
        cv2.resize(each, small_size, interpolation=cv2.INTER_AREA)
        for each in (pixels, heatmap.astype(np.float64))
    )
    kinds = _kinds(small_heatmap, fraction, sure)
    if not heatmap.any() or not (kinds & 1).any():
        return None
    models = _colour_models(small, kinds)
    if small_size == size:
        return _cut(small, kinds, models, _FINE)
    found = _cut(small, kinds, models, _COARSE)
    region = cv2.resize(found.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    width = 2 * round(_BAND / shrink) + 1
    square = np.ones((width, width), np.uint8)
    inner = cv2.erode(region.astype(np.uint8), square)
    outer = cv2.dilate(region.astype(np.uint8), square)
    kinds = _kinds(heatmap, fraction, sure)
    kinds[(inner == 1) & (kinds != cv2.GC_BGD)] = cv2.GC_FGD
    kinds[(outer == 0) & (kinds != cv2.GC_FGD)] = cv2.GC_BGD
    return _cut(pixels, kinds, models, _FINE)


def _kinds(heatmap: np.ndarray, fraction: float, sure: float) -> np.ndarray:
    """uint8 (H,W) with grabCut's four kinds of pixels. Both kinds of foreground are odd."""
    order = np.argsort(-heatmap, axis=None, kind="stable")
    kinds = np.full(heatmap.size, cv2.GC_PR_BGD, np.uint8)
    kinds[order[: round(fraction * heatmap.size)]] = cv2.GC_PR_FGD
    kinds[order[: round(fraction * sure * heatmap.size)]] = cv2.GC_FGD
    kinds = kinds.reshape(heatmap.shape)
    inner = tuple(slice(w, -w) for w in (max(1, round(s * _BORDER)) for s in heatmap.shape))
    framed = np.full_like(kinds, cv2.GC_BGD)
    framed[inner] = kinds[inner]
    return framed


def _colour_models(pixels: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's mixtures of Gaussians for the colours of background and foreground, (65,) each."""
    cv2.setRNGSeed(0)  # the first clusters are drawn at random
    background, foreground = np.zeros((2, 1, 13 * _COMPONENTS))
    arguments = (None, background, foreground, 0, cv2.GC_INIT_WITH_MASK)  # 0: no iteration
    cv2.grabCut(np.ascontiguousarray(pixels), kinds.copy(), *arguments)
    return background[0], foreground[0]


def _cut(
    pixels: np.ndarray, kinds: np.ndarray, models: tuple[np.ndarray, np.ndarray], smoothness: float
) -> np.ndarray:
    """The foreground, bool (H,W), with the smallest energy that agrees with the certain `kinds`."""
    certain = 9 * smoothness  # more than all neighbours of a pixel together
    cost = np.where(kinds == cv2.GC_FGD, certain, -certain)
    open_ = (kinds == cv2.GC_PR_BGD) | (kinds == cv2.GC_PR_FGD)
    colours = pixels[open_].astype(np.float64)
    background, foreground = (_negative_log_likelihood(colours, model) for model in models)
    cost[open_] = background - foreground
    return min_cut(pixels, cost, smoothness)


def _negative_log_likelihood(colours: np.ndarray, model: np.ndarray) -> np.ndarray:
    """-log of a mixture's density (N,) at colours (N,3), up to a constant."""
    weights, means, covariances = np.split(model, [_COMPONENTS, 4 * _COMPONENTS])
    used = weights > 0
    means, precisions = means.reshape(-1, 3)[used], covariances.reshape(-1, 3, 3)[used]
    heights = np.log(weights[used]) - np.linalg.slogdet(precisions)[1] / 2
    precisions = np.linalg.inv(precisions)
    # the exponents are quadratic in the colours: one matrix product gives those of all components
    linear = np.einsum("kij,kj->ki", precisions, means)
    constant = heights - np.einsum("ki,ki->k", linear, means) / 2
    colours = np.ascontiguousarray(colours.T)
    squares = (colours[:, None] * colours).reshape(9, -1)
    exponents = linear @ colours - precisions.reshape(-1, 9) @ squares / 2 + constant[:, None]
    largest = exponents.max(axis=0)
    return -np.log(np.exp(exponents - largest).sum(axis=0)) - largest
