"""Attribution-robust training of timm classifiers: images in [0,1] and labels in, a model out.

Models: `create_model`, `wrap_model`, `load_model`, `save_model` and their class `Classifier`;
`LogGradient` is a front end for tiny models.

Scores, each images (N,3,H,W) -> one number per image: `class_score`, `cross_entropy_score`.
Attributions of a score: `input_gradient`, `input_x_gradient`, `integrated_gradients`, `smoothgrad`.
`FiniteDifference` is a way to differentiate them again; `smooth` replaces ReLU by softplus.

Training: `fit` with `TrainingSettings`. `objectives` holds one class for each method; `PGD` is the
attack of those that have one, and `Attack` is the base class for an attack of one's own.
`SeededBatches` is the sampler of a loader that an interrupted run can continue.
"""

import importlib
from typing import TYPE_CHECKING

from robust_training import objectives
from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import (
    input_x_gradient,
    integrated_gradients,
    smoothgrad,
)
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score, cross_entropy_score
from robust_training.autograd.curvature import FiniteDifference
from robust_training.autograd.smooth_activation import smooth
from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model, wrap_model
from robust_training.models.log_gradient import LogGradient
from robust_training.models.saving import load_model, save_model
from robust_training.training.batches import SeededBatches
from robust_training.training.settings import TrainingSettings

if TYPE_CHECKING:  # what a type checker reads in place of __getattr__
    from robust_training.training.fit import fit


def __getattr__(name: str) -> object:
    """Load the training loop when it is asked for: who only opens a model need not wait for it."""
    if name == "fit":
        return importlib.import_module("robust_training.training.fit").fit
    raise AttributeError(f"module 'robust_training' has no attribute {name!r}")


__all__ = [
    "PGD",
    "Attack",
    "Classifier",
    "FiniteDifference",
    "LogGradient",
    "SeededBatches",
    "TrainingSettings",
    "class_score",
    "create_model",
    "cross_entropy_score",
    "fit",
    "input_gradient",
    "input_x_gradient",
    "integrated_gradients",
    "load_model",
    "objectives",
    "save_model",
    "smooth",
    "smoothgrad",
    "wrap_model",
]
