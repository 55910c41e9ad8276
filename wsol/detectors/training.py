"""Trains a detector on given boxes, for example pseudo labels."""

import copy
import time
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchvision.ops import box_iou

from robust_training.progress import Progress
from robust_training.training.schedule import Cosine, Schedule
from wsol.detectors.base import Detections, Network, corner_scale


@dataclass(frozen=True)
class Training:
    """Settings for training a detector with AdamW.

    Attributes:
        epochs: Passes over the training images.
        lr: Learning rate of the head.
        backbone_lr: Factor on the learning rate for the backbone.
        weight_decay: Weight decay of all weights.
        schedule: Factor on the learning rate over time.
        clip_norm: Largest gradient norm.
    """

    epochs: int = 15
    lr: float = 0.001
    backbone_lr: float = 0.5
    weight_decay: float = 0.05
    schedule: Schedule = Cosine(warmup_epochs=1)
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not (self.lr > 0 and self.backbone_lr >= 0 and self.clip_norm > 0):
            raise ValueError(
                "training: epochs must be at least 1, lr and clip_norm above 0, backbone_lr at "
                "least 0"
            )


def fit_detector(
    network: Network,
    training: DataLoader,
    validation: DataLoader,
    settings: Training,
    *,
    seed: int = 0,
    title: str = "training",
) -> list[dict[str, float]]:
    """Trains a network. At the end it has the weights of the best epoch, in evaluation mode.
    Returns a row for each epoch: its number, mean loss terms, `val_iou` and `seconds`.

    The best epoch has the highest mean IoU with the boxes of `validation`. They have the same
    source as the boxes of `training`. If epochs are equal, the later one is the best. Both loaders
    read `wsol.data.dataset.LabelledImages`. Images without a box in the crop are left out. The same
    seed and network give the same detector.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: no batch of an epoch had two images with a box in the crop.
    """
    network.to(memory_format=torch.channels_last)  # a third faster, on CPUs too
    body = list(network.backbone.parameters())
    ours = set(body)
    head = [parameter for parameter in network.parameters() if parameter not in ours]
    groups = [{"params": head}, {"params": body, "lr": settings.lr * settings.backbone_lr}]
    optimizer = AdamW(groups, settings.lr, weight_decay=settings.weight_decay)
    steps = len(training)
    scheduler = LambdaLR(optimizer, lambda step: settings.schedule(step / steps, settings.epochs))
    log: list[dict[str, float]] = []
    best, kept = -1.0, network.state_dict()
    with Progress(total=settings.epochs * steps, desc=title, unit="step") as bar:
        for epoch in range(settings.epochs):
            torch.manual_seed(seed * 100_003 + epoch)
            started = time.perf_counter()
            network.train()
            rows = []
            for batch in training:
                terms = _losses(network, batch)
                if terms:
                    loss = torch.stack(list(terms.values())).sum()
                    if not loss.isfinite():
                        raise FloatingPointError(
                            f"the detector's loss is {loss.item()}; lower training.lr"
                        )
                    optimizer.zero_grad()
                    loss.backward()
                    clip_grad_norm_(network.parameters(), settings.clip_norm)
                    optimizer.step()
                    rows.append({name: term.item() for name, term in terms.items()})
                scheduler.step()
                bar.update()
            if not rows:
                raise ValueError(
                    "no batch had two images with a box in the random crop: give a larger "
                    "batch_size, or larger boxes"
                )
            means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
            agreement = mean_iou(network, validation)
            if agreement >= best:
                best, kept = agreement, copy.deepcopy(network.state_dict())
            seconds = time.perf_counter() - started
            log.append({"epoch": epoch + 1, **means, "val_iou": agreement, "seconds": seconds})
            bar.set_postfix(val_iou=f"{agreement:.3f}")
    network.load_state_dict(kept)
    network.eval()
    return log


@torch.no_grad()
def detect(network: Network, loader: DataLoader, *, title: str = "detecting") -> list[Detections]:
    """Detects boxes in every image of `loader`, in order. The results are on the CPU."""
    network.eval().to(memory_format=torch.channels_last)  # faster, on CPUs too
    device, found = network.backbone.device, []
    for batch in Progress(loader, desc=title, unit="batch", leave=False):
        image = batch["image"].to(device, memory_format=torch.channels_last)
        found += [each.cpu() for each in network.detect(image)]
    return found


@torch.no_grad()
def mean_iou(network: Network, loader: DataLoader) -> float:
    """Mean IoU of each image's most probable box of its class with the box from `loader`."""
    network.eval()
    overlaps = []
    for batch in loader:
        image = batch["image"].to(network.backbone.device)
        boxes = batch["box"].to(image.device) / corner_scale(image)
        for each, box, label in zip(network(image), boxes, batch["label"].tolist(), strict=True):
            overlaps.append(box_iou(each.best_box(label)[None], box[None]).item())
    return sum(overlaps) / len(overlaps)


def _losses(network: Network, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss terms of images with a box in the crop. Empty if there are too few for BatchNorm."""
    image = batch["image"].to(network.backbone.device, memory_format=torch.channels_last)
    label, box = batch["label"].to(image.device), batch["box"].to(image.device)
    box = box / corner_scale(image)
    kept = (box[:, 2:] > box[:, :2]).all(dim=1)
    return network.losses(image[kept], box[kept], label[kept]) if kept.sum() > 1 else {}
