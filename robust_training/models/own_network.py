"""Networks that are not timm's: torchvision's, or a class of one's own, named by a class path."""

import importlib
import importlib.util
import re
from dataclasses import dataclass

from torch import nn

_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_TORCHVISION = "torchvision.models."


@dataclass(frozen=True)
class OwnNetwork:
    """What timm knows of its networks, for another network.

    Attributes:
        path: The class path, for example "my_module.MyNet" or "torchvision.models.resnet18".
        num_classes: Number of logits.
        fixed_size: Whether the network takes images of one size only.
    """

    path: str
    num_classes: int
    fixed_size: bool


def is_class_path(name: str) -> bool:
    """Whether a name has a dot, and its first part is a module that Python finds."""
    found = _CLASS_PATH.fullmatch(name)
    return found is not None and importlib.util.find_spec(name.partition(".")[0]) is not None


def path_of(network: nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


def build_network(path: str, num_classes: int) -> nn.Module:
    """Imports a class path, and calls it with `num_classes`.

    Raises:
        ValueError: it is neither an `nn.Module` nor a function of torchvision.models, or it cannot
            be called with `num_classes` alone.
    """
    module, _, name = path.rpartition(".")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"cannot import the network {path}: {error} (PYTHONPATH=. lets Python find modules in "
            "this folder)"
        ) from error
    # a model folder names its network: it must not be able to call any other function
    is_module = isinstance(make, type) and issubclass(make, nn.Module)
    if not (is_module or (callable(make) and path.startswith(_TORCHVISION))):
        raise ValueError(f"{path} is not a subclass of torch.nn.Module")
    try:
        network = make(num_classes=num_classes)
    except TypeError as error:
        raise ValueError(
            f"{path} cannot be made with num_classes={num_classes} alone: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{path} makes no network")
    return network
