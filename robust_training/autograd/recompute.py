"""Repeat a computation exactly, without side effects on modules and random generators."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from robust_training.autograd.batch_norm import (
    BATCH_NORMS,
    attribute_set,
    running_statistics,
    statistics_set,
)
from robust_training.autograd.held_activations import HoldActivations, Line, RecordActivations
from robust_training.autograd.smooth_activation import SmoothActivations
from robust_training.autograd.softplus import once_differentiable_softplus
from robust_training.devices import TF32
from robust_training.private_api import active_function_modes


class Recording:
    """Records a computation inside `recorded()`; computations inside `replayed()` repeat it.

    The repetition has the same modes of modules, running statistics, dropout masks and held
    activations, and runs under the same function modes, for example `smooth`. Only the recorded run
    updates running statistics. Both run without autocast and without TF32, because a displacement
    of 3e-4 would vanish in bfloat16 and in the 10 bits of TF32.

    Attributes:
        coupled: Whether batch statistics make the images of a batch depend on each other.
    """

    def __init__(self, device: torch.device) -> None:
        self.coupled = False
        self._device = device
        self._modules: dict[nn.Module, bool] = {}  # whether each was in training mode
        self._statistics: dict[nn.Module, dict[str, Tensor]] = {}  # of BatchNorm in evaluation
        self._trains_weights = False
        self._activations: list[Tensor | Line] = []
        self._function_modes = active_function_modes()
        # inside `smooth` a ReLU is softplus, and has no lines
        self._holds_lines = not any(
            isinstance(mode, SmoothActivations) for mode in self._function_modes
        )
        self._random_state = RandomState(device)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(self._record).remove)
            self._enter(stack, RecordActivations(self._activations, self._holds_lines))
            yield

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for mode in self._function_modes:
                stack.enter_context(mode)
            stack.enter_context(self._random_state.replayed())
            for training in (True, False):
                modules = [m for m, mode in self._modules.items() if mode is training]
                stack.enter_context(attribute_set(modules, "training", training))
            tracking = [m for m in self._modules if hasattr(m, "track_running_stats")]
            stack.enter_context(attribute_set(tracking, "track_running_stats", False))
            stack.enter_context(statistics_set(self._statistics))
            self._enter(stack, HoldActivations(self._activations, self._holds_lines))
            yield

    def _enter(self, stack: ExitStack, activations: TorchFunctionMode) -> None:
        stack.enter_context(torch.autocast(self._device.type, enabled=False))
        stack.enter_context(attribute_set(TF32, "allow_tf32", False))
        stack.enter_context(_OnceDifferentiableSoftplus(lambda: self._trains_weights))
        stack.enter_context(activations)

    def _record(self, module: nn.Module, _) -> None:
        self._modules[module] = module.training
        if isinstance(module, BATCH_NORMS):
            self.coupled |= module.training
            if not module.training:
                self._statistics[module] = running_statistics(module)
        self._trains_weights |= any(p.requires_grad for p in module.parameters(recurse=False))


class _OnceDifferentiableSoftplus(TorchFunctionMode):
    """Replaces softplus by a form with a first derivative only, which needs less time and memory.

    If weights are trained, it keeps its output instead of its input for the backward pass, because
    the next layer keeps this output anyway.
    """

    def __init__(self, trains_weights: Callable[[], bool]) -> None:
        super().__init__()
        self.trains_weights = trains_weights

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.softplus:
            return once_differentiable_softplus(
                *args, **(kwargs or {}), keep_output=self.trains_weights()
            )
        return func(*args, **(kwargs or {}))


class RandomState:
    """Stores the state of the random generators, to draw the same dropout masks again."""

    def __init__(self, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
