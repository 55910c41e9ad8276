"""Training objectives, one method or family in each file. These imports are the registry."""

from robust_training.objectives.aat import AAT, AdvAAT
from robust_training.objectives.adversarial_training import AdversarialTraining
from robust_training.objectives.art import ART
from robust_training.objectives.base import AttackState, Objective
from robust_training.objectives.enhanced_regularizers import EnhancedRegularizers
from robust_training.objectives.ig_norm import IGNorm, IGSumNorm
from robust_training.objectives.input_gradient_penalty import InputGradientPenalty
from robust_training.objectives.marginal_density import MarginalDensity
from robust_training.objectives.standard import Standard
from robust_training.objectives.sum import Part, Sum
from robust_training.objectives.trades import TRADES

__all__ = [
    "AAT",
    "ART",
    "TRADES",
    "AdvAAT",
    "AdversarialTraining",
    "AttackState",
    "EnhancedRegularizers",
    "IGNorm",
    "IGSumNorm",
    "InputGradientPenalty",
    "MarginalDensity",
    "Objective",
    "Part",
    "Standard",
    "Sum",
]
