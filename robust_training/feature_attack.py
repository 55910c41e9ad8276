"""Attacks on explanations: the image hardly changes, the class not at all, the map does."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_training.activation import smoothly
from robust_training.attack import PGD
from robust_training.attribution import alone, class_score
from robust_training.curvature import Curvature, Score
from robust_training.maps import Attribution, InputGradient
from robust_training.model import Classifier
from robust_training.similarity import top_k_intersection


@dataclass(frozen=True)
class Attacked:
    """What an attack on maps left.

    Attributes:
        image: (N,3,H,W), the iterate whose map shares least with the clean one, of those that kept
            the predicted class; the clean image where none did.
        kept: bool (N,), whether one did.
        intersection: (N,) top-k intersection of both maps.
    """

    image: Tensor
    kept: Tensor
    intersection: Tensor


@dataclass(frozen=True)
class TopKAttack:
    """The top-k attack of Ghorbani et al. (AAAI 2019, arXiv 1710.10547; utils.py): takes mass away
    from the k most important pixels of the clean map.

    Maps are sums over channels of magnitudes, of the true class's logit, by the network itself; its
    smooth copy gives the direction.

    Attributes:
        attack: How far, in how many steps.
        top_k: Share of the pixels.
        attribution: Whose maps.
        beta: Of the softplus that stands in for ReLU in the direction; None keeps the network.
        curvature: How the direction is differentiated.
    """

    attack: PGD = PGD(eps=2 / 255, step_size=0.5 / 255, steps=10)
    top_k: float = 0.1
    attribution: Attribution = InputGradient()
    beta: float | None = 50.0
    curvature: Curvature = "finite_difference"

    def __post_init__(self) -> None:
        if not 0 < self.top_k <= 1:
            raise ValueError(f"top_k of TopKAttack must be a share in (0, 1], not {self.top_k}")
        if self.attack.steps < 1:
            raise ValueError(f"attack.steps of TopKAttack must be at least 1, not {self.attack}")

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> Attacked:
        """Images (N,3,H,W) in [0,1] and their classes (N,)."""
        clean = self.maps(model, image, label)
        k = max(1, round(self.top_k * clean.shape[1]))
        score = self._score(model, label, clean.topk(k).indices)
        found = Attacked(
            image.clone(),
            torch.zeros(len(image), dtype=torch.bool, device=image.device),
            torch.ones(len(image), dtype=clean.dtype, device=image.device),
        )
        with torch.no_grad():
            predicted = model(image).argmax(dim=1)
        for perturbed in self.attack.iterates(score, image, self.attack.start(image)):
            with torch.no_grad():
                same = model(perturbed).argmax(dim=1) == predicted
            shared = top_k_intersection(clean, self.maps(model, perturbed, label), k)
            better = same & (~found.kept | (shared < found.intersection))
            found.image[better] = perturbed[better]
            found.intersection[better] = shared[better]
            found.kept[better] = True
        return found

    def maps(self, model: Classifier, image: Tensor, label: Tensor) -> Tensor:
        """(N,H*W)."""
        return _magnitude(self.attribution(alone(class_score(model, label)), image)[0])

    def _score(self, model: Classifier, label: Tensor, support: Tensor) -> Score:
        """Minus the share of the map's mass on the support."""
        scores = smoothly(alone(class_score(model, label)), model, self.beta)

        def score(image: Tensor) -> Tensor:
            (found,) = self.attribution(scores, image, create_graph=True, curvature=self.curvature)
            rows = _magnitude(found)
            mass = rows.sum(dim=1)
            return -rows.gather(1, support).sum(dim=1) / mass.masked_fill(mass == 0, torch.inf)

        return score


def _magnitude(attribution: Tensor) -> Tensor:
    return attribution.abs().sum(dim=1).flatten(1)
