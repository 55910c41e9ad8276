"""Objects found by a Vision Transformer's patch features alone: TokenCut and LOST.

Neither needs a class, so any network with patch tokens makes these maps, also one that was trained
without labels, such as timm's vit_small_patch16_224.dino and vit_small_patch14_dinov2.lvd142m. The
features are the keys of the last attention block, as in both publications.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.ndimage
from torch import Tensor

from robust_training.devices import map_in_threads
from robust_training.models.classifier import Classifier
from wsol.heatmaps.heatmap import HeatmapMethod
from wsol.heatmaps.patch_tokens import last_block, patch_heatmaps, patch_keys


class PatchCut(HeatmapMethod):
    """Finds one object by the features of patches. The map is the same for all classes."""

    @abstractmethod
    def cut(self, features: np.ndarray) -> np.ndarray:
        """Finds the object by finite features float64 (h,w,C), one for each patch: map (h,w)."""

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        keys = patch_keys(model, image).permute(0, 2, 3, 1).cpu().double().numpy()
        return patch_heatmaps(np.stack(map_in_threads(self._cut_finite, keys)), image)

    def fits(self, model: Classifier) -> bool:
        return last_block(model) is not None

    def _cut_finite(self, features: np.ndarray) -> np.ndarray:
        if not np.isfinite(features).all():
            return np.zeros(features.shape[:2])
        return self.cut(features)


@dataclass(frozen=True)
class TokenCut(PatchCut):
    """Splits the patches by a normalized cut (Wang et al., CVPR 2022).

    Two patches are joined if the cosine of their features is above `tau`. The map is the second
    smallest generalized eigenvector of the graph. Its sign is such that its largest magnitude lies
    in the foreground. The published box is that of the values above the mean, limited to the region
    of the largest magnitude. Here the threshold policy chooses the threshold, as for other maps.

    Attributes:
        tau: Cosine above which two patches have weight 1.
        epsilon: Weight of all other pairs, which keeps the graph connected.
    """

    tau: float = 0.2
    epsilon: float = 1e-5

    def cut(self, features: np.ndarray) -> np.ndarray:
        height, width, channels = features.shape
        if height * width < 2:
            return np.zeros((height, width))
        flat = features.reshape(-1, channels)
        unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
        weights = np.where(unit @ unit.T > self.tau, 1.0, self.epsilon)
        degrees = np.diag(weights.sum(axis=1))
        _, vectors = scipy.linalg.eigh(degrees - weights, degrees, subset_by_index=[1, 1])
        vector = vectors[:, 0]
        largest = vector[np.abs(vector).argmax()]
        return (vector if largest > vector.mean() else -vector).reshape(height, width)


@dataclass(frozen=True)
class LOST(PatchCut):
    """Grows the object from one patch (Siméoni et al., BMVC 2021).

    The degree of a patch is the number of patches with which its feature correlates positively. The
    seed is the patch with the lowest degree, since objects are mostly smaller than the background.
    The `patches` of lowest degree that correlate positively with the seed form a group. The map is
    the correlation with this group, summed, where it is positive and connected to the seed. So
    threshold 0 gives the published box.

    Attributes:
        patches: Number of patches of lowest degree that may join the seed's group.
    """

    patches: int = 100

    def cut(self, features: np.ndarray) -> np.ndarray:
        height, width, channels = features.shape
        flat = features.reshape(-1, channels)
        similarity = flat @ flat.T
        degrees = (similarity > 0).sum(axis=1) - (similarity.diagonal() > 0)
        lowest = np.argsort(degrees, kind="stable")[: self.patches]
        seed = lowest[0]
        group = lowest[similarity[seed, lowest] > 0]
        total = np.maximum(similarity[group].sum(axis=0).reshape(height, width), 0)
        regions, _ = scipy.ndimage.label(total > 0)
        return np.where(regions == regions.flat[seed], total, 0)
