"""torch.compile for networks that objectives differentiate as they are."""

import collections

import torch
import torch._dynamo.config
import torch._functorch.config
import torch.nn.functional as F
import torch.nn.modules.module
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from robust_training.autograd.double_backward import EfficientDoubleBackward
from robust_training.autograd.smooth_activation import is_made_smooth
from robust_training.models.classifier import Classifier

_LIMIT = (
    64  # graphs of one network: with and without weight gradients, training or not, batch sizes
)


def compile_backbone(model: Classifier) -> None:
    """Run the backbone of `model` as a compiled program from here on.

    Neither function modes nor module hooks reach into a compiled network, so it must be one that
    needs none: no ReLU or kin (made smooth), max pooling or rounding (choices are held), batch
    normalisation (modes are held) or active dropout. Vision transformers and ConvNeXts are such
    networks. A compiled network has no second derivative either: curvature must be by finite
    differences. The first step of training compiles for minutes.

    Raises:
        ValueError: a layer that must not be compiled, named; or no working compiler.
    """
    backbone = model.backbone
    with torch.no_grad(), _Looking():
        parameter = next(backbone.parameters())
        side = model.image_size
        image = torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype)
        training = backbone.training
        backbone.train()(image)
        backbone.train(training)
    _require_compiler(parameter.device)
    # gradients of several scores take several backward passes through one graph
    torch._functorch.config.donated_buffer = False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _LIMIT)
    # dynamic shapes mixed graphs up: attribution gradients were a million times too large
    backbone.forward = _Hidden(torch.compile(backbone.forward, dynamic=False), backbone)


class _Hidden:
    """A compiled forward that neither function modes nor global module hooks see.

    Both are new objects at every step, for which it would be compiled again each time. Hooks are
    called once for every module instead.
    """

    def __init__(self, compiled, backbone: nn.Module) -> None:
        self.compiled = compiled
        self.backbone = backbone
        self.none = collections.OrderedDict()

    def __call__(self, image: Tensor) -> Tensor:
        modes = _get_current_function_mode_stack()
        if any(isinstance(mode, EfficientDoubleBackward) for mode in modes):
            # PyTorch itself would leave the second derivative out where weights are frozen
            raise ValueError(
                "a compiled network has no second derivative: set curvature and attack_curvature "
                "of the objective to finite_difference"
            )
        hooks = torch.nn.modules.module._global_forward_pre_hooks
        for hook in hooks.values():
            for module in self.backbone.modules():
                hook(module, ())
        torch.nn.modules.module._global_forward_pre_hooks = self.none
        try:
            with torch._C.DisableTorchFunction():
                return self.compiled(image)
        finally:
            torch.nn.modules.module._global_forward_pre_hooks = hooks


class _Looking(TorchFunctionMode):
    """Refuses what a function mode or a hook of this package would change."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        drops = func is F.dropout and kwargs.get("p", args[1] if len(args) > 1 else 0.5) > 0
        if drops or func in _HELD or is_made_smooth(func):
            raise ValueError(
                f"this network cannot be compiled for robust training: it has a {func.__name__}, "
                "which attributions replace or hold. Networks without ReLU, max pooling, batch "
                "normalisation and dropout can, such as ViT and ConvNeXt"
            )
        return func(*args, **kwargs)


_HELD = {F.max_pool2d, torch.max_pool2d, torch.round, Tensor.round, F.batch_norm}


def _require_compiler(device: torch.device) -> None:
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except (BackendCompilerFailed, RuntimeError) as error:
        last = str(error).strip().splitlines()[0]
        raise ValueError(f"torch.compile does not work here: {last}") from error
