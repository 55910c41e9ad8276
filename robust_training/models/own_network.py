"""Networks that are not timm's: torchvision's, or a class of one's own, named by a class path."""

import importlib.util
from dataclasses import dataclass

from torch import nn

from robust_training.class_path import CLASS_PATH, import_object

_TORCHVISION = "torchvision.models."


@dataclass(frozen=True)
class OwnNetwork:
    """A description of a network that timm has for its own networks only.

    Attributes:
        path: The class path, for example "my_module.MyNet" or "torchvision.models.resnet18".
        fixed_size: Whether the network takes images of one size only.
    """

    path: str
    num_classes: int
    fixed_size: bool


def is_class_path(name: str) -> bool:
    """Whether a name has a dot, and its first part is a module that Python finds."""
    found = CLASS_PATH.fullmatch(name)
    return found is not None and importlib.util.find_spec(name.partition(".")[0]) is not None


def build_network(path: str, num_classes: int) -> nn.Module:
    """Imports a class path, and calls it with `num_classes`. Raises ValueError if it is neither an
    `nn.Module` nor a function of torchvision.models, or it cannot be called with `num_classes`
    alone."""
    make = import_object(path, "network")
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
        raise ValueError(f"{path} returns a {type(network).__name__}, not a torch.nn.Module")
    return network
