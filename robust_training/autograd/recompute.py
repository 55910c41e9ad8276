"""Running a computation again exactly as it ran before, and leaving no trace of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from robust_training.autograd.batch_norm import BATCH_NORMS
from robust_training.autograd.held_activations import Choices, Line, RepeatedChoices
from robust_training.autograd.smooth_activation import Smooth
from robust_training.autograd.softplus import quick_softplus
from robust_training.private_api import active_function_modes


class Recording:
    """Records what runs inside its `with`; `replayed()` gives another `with` that repeats it.

    Repeated are the modules' modes, dropout masks, the choices of `held_activations`, and
    function modes such as `smooth` around the recording. Running statistics follow the recorded run
    alone.
    Both run without autocast: a displacement of 3e-4 would vanish in bfloat16.

    Attributes:
        coupled: Whether batch statistics made the images of a batch depend on each other.
    """

    def __init__(self, device: torch.device) -> None:
        self.coupled = False
        self._device = device
        self._modules: dict[nn.Module, tuple[bool, bool | None]] = {}
        self._trains_weights = False
        self._choices: list[Tensor | Line] = []
        self._function_modes = active_function_modes()
        # inside of `smooth` a ReLU is no longer one
        self._holds_lines = not any(isinstance(mode, Smooth) for mode in self._function_modes)
        self._random_state = RandomState(device)

    def __enter__(self) -> "Recording":
        self._stack = ExitStack()
        handle = register_module_forward_pre_hook(self._note)
        self._stack.callback(handle.remove)
        self._enter(self._stack, Choices(self._choices, self._holds_lines))
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for mode in self._function_modes:
                stack.enter_context(mode)
            stack.enter_context(self._random_state.replayed())
            stack.enter_context(_modes(self._modules))
            self._enter(stack, RepeatedChoices(self._choices, self._holds_lines))
            yield

    def _enter(self, stack: ExitStack, choices: TorchFunctionMode) -> None:
        stack.enter_context(torch.autocast(self._device.type, enabled=False))
        stack.enter_context(_Softplus(lambda: self._trains_weights))
        stack.enter_context(choices)

    def _note(self, module: nn.Module, _) -> None:
        tracking = getattr(module, "track_running_stats", None)
        self._modules[module] = module.training, tracking
        self.coupled |= isinstance(module, BATCH_NORMS) and module.training
        self._trains_weights |= any(p.requires_grad for p in module.parameters(recurse=False))


@contextmanager
def _modes(modules: dict[nn.Module, tuple[bool, bool | None]]) -> Iterator[None]:
    """Modules in the modes they had, with running statistics that stay where they are."""
    now = [(m, m.training, getattr(m, "track_running_stats", None)) for m in modules]
    for module, (training, tracking) in modules.items():
        module.training = training
        if tracking is not None:
            module.track_running_stats = False
    try:
        yield
    finally:
        for module, training, tracking in now:
            module.training = training
            if tracking is not None:
                module.track_running_stats = tracking


class _Softplus(TorchFunctionMode):
    """Softplus that keeps its output alone, where the layer after it keeps that for its weights."""

    def __init__(self, trains_weights: Callable[[], bool]) -> None:
        super().__init__()
        self.trains_weights = trains_weights

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.softplus:
            return quick_softplus(*args, **(kwargs or {}), keep_output=self.trains_weights())
        return func(*args, **(kwargs or {}))


class RandomState:
    """The random generators as they stand now, to draw the same dropout masks again later."""

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
