"""Time and memory of a training step, for each objective."""

from functools import partial
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from robust_training.attacks.pgd import PGD
from robust_training.autograd.curvature import FiniteDifference
from robust_training.models.creating import create_model
from robust_training.objectives import ART, AdversarialTraining, Standard
from robust_training.training.step import Batch, Step
from wsol.benchmarks.timing import seconds_in_turn
from wsol.cli.devices import find_device


def _pgd(steps: int) -> PGD:
    return PGD(2 / 255, 1.5 / 255, steps)


OBJECTIVES = {
    "Standard": Standard(),
    "PGD 3 steps": AdversarialTraining(_pgd(3)),
    "ART exact": ART(),
    "ART finite differences": ART(
        curvature=FiniteDifference(), attack_curvature=FiniteDifference()
    ),
    "ART balanced": ART(form="signed", attack=_pgd(1)),  # as configs/methods/art_balanced.yaml
    "ART light": ART(  # as configs/methods/art_light.yaml
        form="signed",
        triplet=False,
        pair=False,
        beta=5.0,
        attack=_pgd(0),
        curvature=FiniteDifference(),
        attack_batch_norm="running",
        term_batch_norm="running",
        cross_entropy_batch_norm="running",
    ),
    "ART fast": ART(  # as configs/fast.yaml
        attack=_pgd(1),
        curvature=FiniteDifference(merged=True),
        attack_curvature=FiniteDifference(0.5),
    ),
}


def time_training_steps(
    model: str = "resnet50",
    size: PositiveInt = 96,
    batch: PositiveInt = 8,
    classes: PositiveInt = 200,
    device: str = "cpu",
    objectives: list[str] | None = None,
    precision: str = "32-true",
    channels_last: bool = False,
    repeats: PositiveInt = 5,
) -> list[dict[str, Any]]:
    """Time and memory of a step of each objective, divided by time and memory of a Standard step.

    Args:
        model: timm's name of a network. Its weights are random.
        size: Side of the images in pixels.
        batch: Number of images in a batch.
        objectives: Keys of `OBJECTIVES`. If None, all. Standard is always measured.
        precision: Fabric's precision.
        repeats: Steps of each objective; the median counts.

    Raises:
        ValueError: `objectives` has an unknown name.
    """
    names = {"Standard", *(OBJECTIVES if objectives is None else objectives)}
    if not names <= set(OBJECTIVES):
        raise ValueError(f"--objectives must be among {', '.join(OBJECTIVES)}")
    place = find_device(device)
    fabric = Fabric(accelerator=place.type, devices=1, precision=precision)
    torch.manual_seed(0)
    image = torch.rand(batch, 3, size, size, device=place)
    images = image, torch.randint(classes, (batch,), device=place)
    steps = {}
    for name in (name for name in OBJECTIVES if name in names):
        torch.manual_seed(0)
        network = create_model(model, classes, image_size=size)
        if channels_last:
            network.to(memory_format=torch.channels_last)
        steps[name] = fabric.setup_module(Step(network, OBJECTIVES[name]))
    replays = {name: 3 if name.startswith("ART fast") else 1 for name in steps}
    calls = {name: partial(_train, step, *images, replays[name]) for name, step in steps.items()}
    seconds = {name: s / replays[name] for name, s in seconds_in_turn(calls, repeats).items()}
    memory = {name: _peak_bytes(step, *images) for name, step in steps.items()}
    rows = []
    for name in steps:
        median = float(np.median(seconds[name]))
        ratio = float(np.median(seconds[name] / seconds["Standard"]))
        row = {"objective": name, "step_s": median, "ratio": ratio}
        row |= {"images_per_s": batch / median, "memory_mb": memory[name] / 1e6}
        rows.append(row | {"memory_ratio": memory[name] / memory["Standard"]})
    return rows


def _train(step: nn.Module, image: Tensor, label: Tensor, replays: int = 1) -> None:
    """Takes steps of gradient descent on one batch, and waits for the device after each."""
    batch = Batch(image, label)
    for _ in range(replays):
        step.train()
        sum(step(batch).values()).backward()
        with torch.no_grad():
            for parameter in step.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-4 * parameter.grad
                    parameter.grad = None
        if image.is_cuda:
            torch.cuda.synchronize(image.device)


def _peak_bytes(step: nn.Module, image: Tensor, label: Tensor) -> int:
    """Peak memory of tensors during a step, without the memory in use before it."""
    if image.is_cuda:
        before = torch.cuda.memory_allocated(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        _train(step, image, label)
        return torch.cuda.max_memory_allocated(image.device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        _train(step, image, label)
    events = record.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(np.cumsum([change for _, change in changes]).max())
