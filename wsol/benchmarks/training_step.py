"""Time and memory of a training step, for each objective."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from robust_training.attacks.pgd import PGD
from robust_training.autograd.curvature import FiniteDifference
from robust_training.models.classifier import create_model
from robust_training.objectives import ART, AdversarialTraining, Standard
from robust_training.training.step import Batch, Step


def _pgd(steps: int) -> PGD:
    return PGD(2 / 255, 1.5 / 255, steps)


OBJECTIVES = {
    "Standard": Standard(),
    "PGD 3 steps": AdversarialTraining(_pgd(3)),
    "ART exact": ART(),
    "ART finite differences": ART(
        curvature=FiniteDifference(), attack_curvature=FiniteDifference()
    ),
    "ART fast": ART(  # as configs/fast.yaml
        attack=_pgd(1),
        curvature=FiniteDifference(merged=True),
        attack_curvature=FiniteDifference(0.5),
    ),
}


def time_training_steps(
    names: Sequence[str],
    *,
    model: str,
    size: int,
    batch: int,
    classes: int,
    device: torch.device,
    precision: str = "32-true",
    channels_last: bool = False,
    repeats: int = 5,
) -> list[dict[str, Any]]:
    """Time and memory of a step of each objective, as multiples of the Standard step's.

    Args:
        names: Keys of `OBJECTIVES`; Standard is always measured.
        model: timm's name of a network, which gets random weights.
        size: Side of the images in pixels.
        batch: Number of images in a batch.
        precision: Fabric's.
        repeats: Steps of each objective, of which the median counts.

    Raises:
        ValueError: a name is unknown.
    """
    if not set(names) <= set(OBJECTIVES):
        raise ValueError(f"objectives to choose from are {', '.join(OBJECTIVES)}")
    fabric = Fabric(accelerator=device.type, devices=1, precision=precision)
    torch.manual_seed(0)
    image = torch.rand(batch, 3, size, size, device=device)
    label = torch.randint(classes, (batch,), device=device)
    steps = {}
    for name, objective in OBJECTIVES.items():
        if name in {"Standard", *names}:
            torch.manual_seed(0)
            network = create_model(model, classes, image_size=size)
            if channels_last:
                network.to(memory_format=torch.channels_last)
            steps[name] = fabric.setup_module(Step(network, objective))
    replays = {name: 3 if name.startswith("ART fast") else 1 for name in steps}
    seconds = step_seconds(steps, image, label, replays=replays, repeats=repeats)
    memory = {name: peak_bytes(step, image, label) for name, step in steps.items()}
    rows = []
    for name in steps:
        median = float(np.median(seconds[name]))
        ratio = float(np.median(seconds[name] / seconds["Standard"]))
        row = {"objective": name, "step_s": median, "ratio": ratio}
        row |= {"images_per_s": batch / median, "memory_mb": memory[name] / 1e6}
        rows.append(row | {"memory_ratio": memory[name] / memory["Standard"]})
    return rows


def step_seconds(
    steps: Mapping[str, nn.Module],
    image: Tensor,
    label: Tensor,
    *,
    replays: Mapping[str, int],
    repeats: int,
    warmup: int = 1,
) -> dict[str, np.ndarray]:
    """Seconds of each training step, (repeats,).

    The steps take turns, so that a change in the machine's load affects all of them.

    Args:
        steps: Name -> model and objective; each trains its own copy by SGD without momentum.
        replays: Name -> number of steps on the same batch, of which the mean counts.
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
    """Compute terms and gradients, take a step of gradient descent, and wait for the device."""
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
    """Peak memory of tensors during a step, without the memory in use before it."""
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
