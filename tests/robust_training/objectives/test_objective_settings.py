import pytest

from robust_training.attacks.pgd import PGD
from robust_training.objectives import (
    AAT,
    ART,
    TRADES,
    AdvAAT,
    EnhancedRegularizers,
    IGNorm,
    IGSumNorm,
    InputGradientPenalty,
    MarginalDensity,
)


@pytest.mark.parametrize(
    ("objective", "arguments", "word"),
    [
        (ART, {"weight": -1.0}, "weight of ART"),
        (ART, {"beta": 0.0}, "beta of ART"),
        (ART, {"top_k": 0}, "top_k"),
        (ART, {"top_k": 1.5}, "top_k"),
        (ART, {"form": "both"}, "form"),
        (ART, {"attribution": "cam"}, "attribution of ART must be one that can be differentiated"),
        (AAT, {"attribution": None}, "attribution of AAT"),
        (AAT, {"attack": PGD(random_start=False)}, "attack.random_start of AAT"),
        (AAT, {"weight": float("nan")}, "weight of AAT"),
        (AdvAAT, {"attribution": None}, "attribution of AdvAAT"),
        (AdvAAT, {"attack": PGD(steps=0)}, "attack.steps of AdvAAT"),
        (TRADES, {"weight": -1.0}, "weight of TRADES"),
        (TRADES, {"attack": PGD(steps=0)}, "attack.steps of TRADES"),
        (TRADES, {"start_noise": 0.0}, "start_noise of TRADES"),
        (IGNorm, {"steps": 0}, "steps of IGNorm must be 1 or more"),
        (IGNorm, {"attack_steps": 0}, "attack_steps of IGNorm"),
        (IGNorm, {"attack": PGD(random_start=False)}, "attack.random_start of IGNorm"),
        (IGSumNorm, {"weight": -1.0}, "weight of IGSumNorm"),
        (IGSumNorm, {"attack": PGD(steps=0)}, "attack.steps of IGSumNorm"),
        (EnhancedRegularizers, {"cacr": False, "wacr": False}, "cacr or wacr"),
        (EnhancedRegularizers, {"steps": 0}, "steps of EnhancedRegularizers"),
        (MarginalDensity, {"density": "total"}, "density of MarginalDensity"),
        (MarginalDensity, {"form": "roughly"}, "form of MarginalDensity"),
        (MarginalDensity, {"density": "joint", "form": "softmax_taylor"}, "softmax_taylor"),
        (MarginalDensity, {"step": 0.0}, "step of MarginalDensity must be positive"),
        (InputGradientPenalty, {"norm": "l3"}, "norm of InputGradientPenalty"),
        (InputGradientPenalty, {"weight": -1.0}, "weight of InputGradientPenalty"),
    ],
)
def test_bad_settings_name_the_field(objective, arguments, word):
    with pytest.raises(ValueError, match=word):
        objective(**arguments)
