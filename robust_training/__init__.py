"""Attribution-robust training of timm classifiers: images in [0,1] and labels in, a model out."""

from robust_training import objectives
from robust_training.activation import smooth
from robust_training.attack import PGD
from robust_training.attribution import (
    class_score,
    cross_entropy_score,
    input_gradient,
    input_x_gradient,
    integrated_gradients,
    smoothgrad,
)
from robust_training.curvature import FiniteDifference
from robust_training.front import LogGradient
from robust_training.model import Classifier, create_model, load_model, save_model, wrap_model

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
