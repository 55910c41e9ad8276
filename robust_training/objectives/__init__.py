"""Training objectives, one file each. These imports are the registry."""

from robust_training.objectives.adversarial_training import AdversarialTraining
from robust_training.objectives.art import ART
from robust_training.objectives.base import Carried, Objective
from robust_training.objectives.standard import Standard

__all__ = ["ART", "AdversarialTraining", "Carried", "Objective", "Standard"]
