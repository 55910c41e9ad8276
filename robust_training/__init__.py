"""Attribution-robust training of timm classifiers: images in [0,1] and labels in, a model out."""

from robust_training import objectives
from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import (
    input_gradient,
    input_x_gradient,
    integrated_gradients,
    smoothgrad,
)
from robust_training.attribution.scores import class_score, cross_entropy_score
from robust_training.autograd.curvature import FiniteDifference
from robust_training.autograd.smooth_activation import smooth
from robust_training.models.classifier import (
    Classifier,
    create_model,
    load_model,
    save_model,
    wrap_model,
)
from robust_training.models.log_gradient import LogGradient

__all__ = [
    "PGD",
    "Classifier",
    "FiniteDifference",
    "LogGradient",
    "class_score",
    "create_model",
    "cross_entropy_score",
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
