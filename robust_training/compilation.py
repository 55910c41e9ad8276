"""torch.compile for networks whose gradients are differentiated by finite differences."""

import torch
import torch._dynamo
import torch._functorch.config
from torch import nn


def compile_model(model: nn.Module) -> None:
    """Compile the network's forward and backward passes in place; needs a C++ compiler.

    For objectives with finite-difference curvature: PyTorch cannot differentiate a compiled
    backward pass. An objective runs the network in up to ten ways (attacked or not, smooth or not,
    recorded or repeated), each compiled once, for each shape. Not with plain `torch.compile`: two
    gradients of one forward pass need buffers that it gives away, and with its dynamic shapes
    PyTorch 2.15 mixes those ways up: attribution gradients came out a million times too large.
    """
    torch._functorch.config.donated_buffer = False
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    model.compile(dynamic=False)
