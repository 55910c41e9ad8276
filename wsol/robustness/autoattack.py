"""AutoAttack on predictions, by its authors' code. The package is optional."""

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from torch import Tensor

from robust_training.models.classifier import Classifier

_NORMS = {"linf": "Linf", "l2": "L2"}
_TARGETS = 9  # AutoAttack's standard number of target classes


@dataclass(frozen=True)
class AutoAttack:
    """Attacks of AutoAttack (Croce and Hein, ICML 2020) with its standard settings.

    The code is that of its authors, which RobustBench uses, too: `pip install 'wsol[attacks]'`.

    Attributes:
        parts: The attacks, in this order. `apgd-ce` and `apgd-t` are the two PGD attacks: 100 steps
            on the cross-entropy, and 100 steps towards each of the nine most probable other
            classes. All four parts together are RobustBench's standard attack.
        norm: "linf" or "l2".
    """

    parts: tuple[Literal["apgd-ce", "apgd-t", "fab-t", "square"], ...] = ("apgd-ce", "apgd-t")
    norm: Literal["linf", "l2"] = "linf"

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("AutoAttack needs at least one of its parts, for example [apgd-ce]")
        if self.norm not in _NORMS:
            raise ValueError(f"norm of AutoAttack must be one of {list(_NORMS)}, not {self.norm}")

    def require_runnable(self, classes: int) -> None:
        """Raises ValueError if the package is missing or an attack needs more classes."""
        _package()
        if classes < 4 and "apgd-t" in self.parts:
            raise ValueError(
                f"apgd-t of AutoAttack needs 4 classes, and the model has {classes}; give other "
                "parts, for example [apgd-ce]"
            )

    def __call__(
        self, model: Classifier, radius: float, seed: int, image: Tensor, label: Tensor
    ) -> Tensor:
        """Returns attacked images (N,3,H,W) in [0,1]. Images that withstand all attacks are
        returned unchanged.

        Args:
            radius: Radius of the ball around the image, in pixel units of [0,1]; above 0.
            seed: Seed of the random starts. It also sets PyTorch's global generator.
            image: (N,3,H,W) in [0,1]. The model contains the normalisation.
            label: (N,), the true classes.
        """
        attack = _package().AutoAttack(
            model, norm=_NORMS[self.norm], eps=radius, seed=seed, device=model.device
        )
        attack.attacks_to_run = list(self.parts)
        targets = min(_TARGETS, model.num_classes - 1)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
        attacked, _ = attack.run_standard_evaluation(image, label, batch_size=len(image))
        return attacked


def _package() -> ModuleType:
    try:
        import pyautoattack
    except ImportError as error:
        raise ValueError("AutoAttack needs a package: pip install 'wsol[attacks]'") from error
    return pyautoattack
