"""Heatmap methods by name: `gradient`, `refined averaged gradient`, `cam`, `my_module.MyHeatmap`.

A name consists of any number of `SWITCHES`, the outermost first, and one of `BASES` or the class
path of a `HeatmapMethod`. Underscores stand for spaces, except in names with a class path.
"""

from collections.abc import Callable, Iterable
from functools import partial, reduce

from robust_training.attribution.anchors import BorderContrast, Edges, Image
from robust_training.attribution.explanation import IntegratedGradients, SmoothGrad
from robust_training.class_path import CLASS_PATH, import_object, path_of_class
from wsol.data.names import nearest
from wsol.heatmaps.attention_rollout import AttentionRollout
from wsol.heatmaps.averaged import Averaged, Product
from wsol.heatmaps.ddt import DDT
from wsol.heatmaps.heatmap import CAM, AnchorMap, Attributed, CentredBox, Gradient, HeatmapMethod
from wsol.heatmaps.packaged_cam import PackagedCAM
from wsol.heatmaps.patch_cuts import LOST, TokenCut
from wsol.heatmaps.refined import Refined

BASELINE = "centred box"
BASES: dict[str, HeatmapMethod] = {
    "gradient": Gradient(),
    "cam": CAM(),
    BASELINE: CentredBox(),
    "smoothgrad": Attributed(SmoothGrad()),
    "integrated gradients": Attributed(IntegratedGradients()),
    "gradient x cam": Product(Gradient(), CAM()),
    "gradcam": PackagedCAM("GradCAM"),
    "gradcam++": PackagedCAM("GradCAMPlusPlus"),
    "layercam": PackagedCAM("LayerCAM"),
    "scorecam": PackagedCAM("ScoreCAM"),
    "ablationcam": PackagedCAM("AblationCAM"),
    "ddt": DDT(),
    "attention rollout": AttentionRollout(),
    "tokencut": TokenCut(),
    "lost": LOST(),
    "image": AnchorMap(Image()),
    "border contrast": AnchorMap(BorderContrast()),
    "edges": AnchorMap(Edges()),
}
_REFINED = "refined"
SWITCHES: dict[str, Callable[[HeatmapMethod], HeatmapMethod]] = {
    "flipped": partial(Averaged, scales=(1.0,)),
    "averaged": Averaged,
    _REFINED: Refined,
}
LOCALIZER = "refined gradient"  # the map of `Localizer` and localize.py if no other is asked for
DEFAULT = ("gradient", LOCALIZER, "cam", BASELINE)
NAMES = f"heatmaps: {', '.join(BASES)}, or a class path, each after any of {', '.join(SWITCHES)}"


def find_method(name: str) -> HeatmapMethod:
    """Returns the method called `name`. If the name has a class path, its module is imported.
    Raises ValueError if there is no such method (the message lists all), or the class path is not a
    subclass of `HeatmapMethod` that can be made without arguments."""
    switches, base = _split(name)
    return _switched(switches, BASES[base] if base in BASES else _of_class(base))


def denotes(name: str, method: HeatmapMethod | str) -> bool:
    """Whether `name`, which may be read from a file, denotes `method`. Imports no class path."""
    if isinstance(method, str):
        return name == plain_name(method)
    try:
        switches, base = _split(name)
    except ValueError:  # the map was made by another program
        return False
    return base in BASES and _switched(switches, BASES[base]) == method


def name_of(method: HeatmapMethod) -> str:
    """Returns the name of one of the `BASES`, or else the class path."""
    own = path_of_class(type(method))
    return next((name for name, each in BASES.items() if each == method), own)


def baseline_of(name: str) -> str:
    """Returns the name of a method's baseline: the centred box, refined if the method is.

    Refinement can find birds by colour alone. Therefore a refined map must score higher than the
    refined centred box.
    """
    switches, _ = _split(name)
    kept = len(switches) - switches[::-1].index(_REFINED) if _REFINED in switches else 0
    return " ".join([*switches[:kept], BASELINE])


def with_baselines(names: Iterable[str]) -> dict[str, HeatmapMethod]:
    """Name -> method, in order, followed by the baselines that are not among the methods. Raises
    ValueError if a method is not valid, see `find_method`."""
    plain = [plain_name(name) for name in names]
    return {name: find_method(name) for name in [*plain, *map(baseline_of, plain)]}


def _switched(switches: list[str], method: HeatmapMethod) -> HeatmapMethod:
    return reduce(lambda made, switch: SWITCHES[switch](made), reversed(switches), method)


def plain_name(name: str) -> str:
    """Returns the name without underscores, as files and tables have it."""
    switches, base = _split(name)
    return " ".join([*switches, base])


def _split(name: str) -> tuple[list[str], str]:
    """Switches, the outermost first, and a key of `BASES` or a class path."""
    rest, switches = name if "." in name else name.replace("_", " "), []
    while rest not in BASES and not CLASS_PATH.fullmatch(rest):
        switch, _, rest = rest.partition(" ")
        if switch not in SWITCHES:
            near = nearest(name, [*BASES, *SWITCHES])
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no heatmap method {name!r}{hint} ({NAMES})")
        switches.append(switch)
    return switches, rest


def _of_class(path: str) -> HeatmapMethod:
    found = import_object(path, "heatmap method")
    if not (isinstance(found, type) and issubclass(found, HeatmapMethod)):
        raise ValueError(f"{path} is not a subclass of wsol.heatmaps.heatmap.HeatmapMethod")
    try:
        return found()
    except TypeError as error:  # arguments are missing, or the class is abstract
        raise ValueError(f"{path} cannot be made without arguments: {error}") from error
