"""A copy of a network whose hooks, layers and gradients do not touch the network itself."""

import copy

from torch import nn

from robust_training.models.classifier import Classifier


def private_copy(model: Classifier) -> Classifier:
    """Copies the layers of a network, but not its weights: both share them.

    Hooks and new layers in the copy have no effect on the network, and other threads may use the
    network at the same time. The copy is in evaluation mode, and its weights need no gradient.
    """
    shared = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared).eval()
