"""Training a detector on somebody's boxes."""

import copy
import time
from dataclasses import dataclass

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchvision.ops import box_iou
from tqdm import tqdm

from robust_training.training.schedule import Cosine, Schedule
from wsol.detectors.base import Detections, Network


@dataclass(frozen=True)
class Training:
    """How a detector is trained, with AdamW.

    Attributes:
        epochs: Passes over the training images.
        lr: Learning rate of the head.
        backbone_lr: Factor on it for the backbone, which has learned already.
        weight_decay: Of all weights.
        schedule: Learning rate over time.
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
    how: Training,
    *,
    seed: int = 0,
    title: str = "training",
) -> list[dict[str, float]]:
    """Train, and leave `network` in evaluation mode as it was after the best epoch.

    That is the one with the highest mean IoU with the boxes of `validation`, which come from whom
    those of `training` do; the later one of equals. Batches are those of
    `wsol.data.dataset.LabelledImages`. An image whose box a crop has lost takes no part. The same
    seed and network give the same detector.

    Returns:
        One row for each epoch: its number, mean terms of the loss, `val_iou`, `seconds`.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: no batch of an epoch held two images that still had their box.
    """
    network.to(memory_format=torch.channels_last)  # a third faster, on CPUs too
    body = list(network.backbone.parameters())
    ours = set(body)
    head = [parameter for parameter in network.parameters() if parameter not in ours]
    groups = [
        {"params": head, "lr": how.lr},
        {"params": body, "lr": how.lr * how.backbone_lr},
    ]
    optimizer = AdamW(groups, weight_decay=how.weight_decay)
    steps = len(training)
    scheduler = LambdaLR(optimizer, lambda step: how.schedule(step / steps, how.epochs))
    log: list[dict[str, float]] = []
    best, kept = -1.0, network.state_dict()
    with tqdm(total=how.epochs * steps, desc=title, unit="step") as bar:
        for epoch in range(how.epochs):
            torch.manual_seed(seed * 100_003 + epoch)
            started = time.perf_counter()
            network.train()
            rows = []
            for batch in training:
                terms = _losses(network, batch)
                if terms:
                    _step(terms, network, optimizer, how.clip_norm)
                    rows.append({name: term.item() for name, term in terms.items()})
                scheduler.step()
                bar.update()
            if not rows:
                raise ValueError(
                    "no batch held two images with a box: give a larger batch_size; or the "
                    "teacher's boxes are so small that random crops lose nearly all of them"
                )
            means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
            agreement = mean_iou(network, validation)
            if agreement >= best:
                best, kept = agreement, copy.deepcopy(network.state_dict())
            seconds = time.perf_counter() - started
            log.append({"epoch": epoch + 1, **means, "val_iou": agreement, "seconds": seconds})
            bar.set_postfix(val_iou=f"{agreement:.3f}")
    network.load_state_dict(kept)
    network.to(memory_format=torch.contiguous_format).eval()
    return log


@torch.no_grad()
def detect(network: Network, loader: DataLoader) -> list[Detections]:
    """What is found in every image of `loader`, in order; on the CPU."""
    network.eval()
    device = next(network.parameters()).device
    return [each.cpu() for batch in loader for each in network.detect(batch["image"].to(device))]


@torch.no_grad()
def mean_iou(network: Network, loader: DataLoader) -> float:
    """Of each image's likeliest box of its class with the box that `loader` says."""
    network.eval()
    device = next(network.parameters()).device
    overlaps = []
    for batch in loader:
        image = batch["image"].to(device)
        boxes = _shares(batch["box"].to(device), image)
        for found, box, label in zip(network(image), boxes, batch["label"].tolist(), strict=True):
            overlaps.append(box_iou(found.best_box(label)[None], box[None]).item())
    return sum(overlaps) / len(overlaps)


def _losses(network: Network, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the images that still have their box; none where these are too few for BatchNorm."""
    device = next(network.parameters()).device
    image = batch["image"].to(device, memory_format=torch.channels_last)
    label, box = batch["label"].to(device), _shares(batch["box"].to(device), image)
    there = (box[:, 2:] > box[:, :2]).all(dim=1)
    return network.losses(image[there], box[there], label[there]) if there.sum() > 1 else {}


def _step(
    terms: dict[str, torch.Tensor], network: Network, optimizer: AdamW, clip_norm: float
) -> None:
    loss = torch.stack(list(terms.values())).sum()
    if not loss.isfinite():
        raise FloatingPointError(f"the detector's loss is {loss.item()}; lower training.lr")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimizer.step()


def _shares(box: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Boxes (N,4) in an image's pixels as shares of its sides."""
    height, width = image.shape[2:]
    return box / box.new_tensor([width, height, width, height])
