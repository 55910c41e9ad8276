"""What a training step costs: seconds and memory, measured as users will meet them."""

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from robust_training.training.step import Batch


def step_seconds(
    steps: Mapping[str, nn.Module],
    image: Tensor,
    label: Tensor,
    *,
    replays: Mapping[str, int],
    repeats: int,
    warmup: int = 1,
) -> dict[str, np.ndarray]:
    """Seconds of each training step (repeats,), round by round, so that all see the same machine.

    Args:
        steps: Name -> model and objective; each trains its own copy by SGD without momentum.
        replays: Name -> steps on the same batch, of which the mean counts.
    """
    seconds = {name: [] for name in steps}
    for round_ in range(warmup + repeats):
        for name, step in steps.items():
            batch = Batch(image, label)
            start = time.perf_counter()
            for _ in range(replays[name]):
                train_once(step, batch)
            if round_ >= warmup:
                seconds[name].append((time.perf_counter() - start) / replays[name])
    return {name: np.array(values) for name, values in seconds.items()}


def train_once(step: nn.Module, batch: Batch, *, lr: float = 1e-4) -> None:
    """Terms, gradients and a plain descent step; waits for the device."""
    step.train()
    sum(step(batch).values()).backward()
    with torch.no_grad():
        for parameter in step.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad
                parameter.grad = None
    if batch.image.is_cuda:
        torch.cuda.synchronize(batch.image.device)


def peak_bytes(step: nn.Module, image: Tensor, label: Tensor) -> int:
    """The most memory that tensors took during a step beyond what was there before it."""
    if image.is_cuda:
        before = torch.cuda.memory_allocated(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        train_once(step, Batch(image, label))
        return torch.cuda.max_memory_allocated(image.device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        train_once(step, Batch(image, label))
    events = record.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(np.cumsum([change for _, change in changes]).max())
