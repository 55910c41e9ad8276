"""Heatmap methods by name: `gradient`, `refined averaged gradient`, `cam`, ...

A name is one of `BASES` behind any number of `SWITCHES`, the outermost first; underscores stand for
spaces.
"""

import difflib
from collections.abc import Callable, Iterable
from functools import partial

from robust_training.attribution.explanation import IntegratedGradients, SmoothGrad
from wsol.heatmaps.averaged import Averaged, Product
from wsol.heatmaps.heatmap import CAM, Attributed, CentredBox, Gradient, HeatmapMethod
from wsol.heatmaps.refined import Refined

BASELINE = "centred box"
BASES: dict[str, HeatmapMethod] = {
    "gradient": Gradient(),
    "cam": CAM(),
    BASELINE: CentredBox(),
    "smoothgrad": Attributed(SmoothGrad()),
    "integrated gradients": Attributed(IntegratedGradients()),
    "gradient x cam": Product(Gradient(), CAM()),
}
_REFINED = "refined"
SWITCHES: dict[str, Callable[[HeatmapMethod], HeatmapMethod]] = {
    "flipped": partial(Averaged, scales=(1.0,)),
    "averaged": Averaged,
    _REFINED: Refined,
}
DEFAULT = ("gradient", "cam", BASELINE)
NAMES = f"heatmaps: {', '.join(BASES)}, each behind any of {', '.join(SWITCHES)}"


def find_method(name: str) -> HeatmapMethod:
    """The method called `name`.

    Raises:
        ValueError: there is none; says which there are.
    """
    switches, base = _split(name)
    method = BASES[base]
    for switch in reversed(switches):
        method = SWITCHES[switch](method)
    return method


def baseline_of(name: str) -> str:
    """What a method's score stands beside: the centred box, refined where the method refines.

    Refinement finds birds by their colours alone, so that a refined map has shown something only
    beside the same refinement of a map that never saw the image.
    """
    switches, _ = _split(name)
    kept = len(switches) - switches[::-1].index(_REFINED) if _REFINED in switches else 0
    return " ".join([*switches[:kept], BASELINE])


def with_baselines(names: Iterable[str]) -> dict[str, HeatmapMethod]:
    """The methods by their plain names, in order, then the floors that are not among them.

    Raises:
        ValueError: as `find_method`.
    """
    plain = [" ".join([*switches, base]) for switches, base in map(_split, names)]
    return {name: find_method(name) for name in [*plain, *map(baseline_of, plain)]}


def _split(name: str) -> tuple[list[str], str]:
    rest, switches = name.replace("_", " "), []
    while rest not in BASES:
        switch, _, rest = rest.partition(" ")
        if switch not in SWITCHES:
            near = difflib.get_close_matches(name, [*BASES, *SWITCHES], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no heatmap method {name!r}{hint} ({NAMES})")
        switches.append(switch)
    return switches, rest
