"""A detector with one box for each image, without a class."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss

from robust_training.models.classifier import Classifier
from wsol.boxes.geometry import rescale
from wsol.data.inputs import to_pixels
from wsol.detectors.base import Detections, Detector, Network, feature_maps, stages
from wsol.heatmaps.refined import refine_box


@dataclass(frozen=True)
class Regressor(Detector):
    """A class-agnostic box from the last feature map (the idea of PSOL, Zhang et al., CVPR 2020).

    The head is a 1 x 1 convolution, pooling to a grid, and a linear layer. The sigmoids of its
    outputs are centre and size. Before training, the box is centred with half the image's sides.

    Attributes:
        grid: Side of the grid to which the features are pooled; 1 is PSOL's global pooling.
        width: Channels of the convolution.
        giou: Weight of the generalized IoU loss (Rezatofighi et al., CVPR 2019).
        smooth_l1: Weight of the smooth L1 distance of centres and sizes, as fractions of the image.
        beta: Distance below which the smooth L1 distance is quadratic.
        flip: Whether boxes are averaged over the image and its mirror image, at twice the cost.
        refine: Whether `detect` averages each box with the box around the region of similar colours
            at its middle (`refine_box`). It runs on the CPU.
    """

    grid: int = 4
    width: int = 128
    giou: float = 1.0
    smooth_l1: float = 1.0
    beta: float = 0.1
    flip: bool = True
    refine: bool = False

    def __post_init__(self) -> None:
        if self.grid < 1 or self.width < 1 or not self.beta > 0:
            raise ValueError("Regressor: grid and width must be at least 1, beta above 0")
        if not (self.giou >= 0 and self.smooth_l1 >= 0 and self.giou + self.smooth_l1 > 0):
            raise ValueError("Regressor: giou and smooth_l1 must be 0 or more, and not both 0")

    def build(self, backbone: Classifier, class_names: list[str]) -> Network:
        return _RegressorNetwork(self, backbone, class_names)


class _RegressorNetwork(Network):
    def __init__(self, settings: Regressor, backbone: Classifier, class_names: list[str]) -> None:
        super().__init__(settings, backbone, class_names)
        channels = stages(backbone)[-1]["num_chs"]
        self.head = nn.Sequential(
            nn.Conv2d(channels, settings.width, 1, bias=False),
            nn.BatchNorm2d(settings.width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(settings.grid),
            nn.Flatten(),
            nn.Linear(settings.width * settings.grid**2, 4),
        )
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, image: Tensor) -> list[Detections]:
        boxes = box_convert(self._predicted(image), "cxcywh", "xyxy").clamp(0, 1)
        return [Detections(box[None], None, box.new_ones(1)) for box in boxes]

    def detect(self, image: Tensor) -> list[Detections]:
        detections = self(image)
        if not self.settings.refine:
            return detections
        return [_refined(*pair) for pair in zip(detections, to_pixels(image), strict=True)]

    def losses(self, image: Tensor, box: Tensor, label: Tensor) -> dict[str, Tensor]:
        terms = self._terms(self._centre_and_size(image), box)
        return {name: term.mean() for name, term in terms.items()}

    def distance(self, image: Tensor, box: Tensor, label: Tensor) -> Tensor:
        """The loss of each image's box, averaged with the mirror image's as in `forward`."""
        return torch.stack(list(self._terms(self._predicted(image), box).values())).sum(dim=0)

    def _terms(self, predicted: Tensor, box: Tensor) -> dict[str, Tensor]:
        """Each image's weighted terms of the loss, (N,), for predicted (N,4) cx, cy, w, h."""
        giou = generalized_box_iou_loss(box_convert(predicted, "cxcywh", "xyxy"), box)
        target = box_convert(box, "xyxy", "cxcywh")
        distance = F.smooth_l1_loss(predicted, target, beta=self.settings.beta, reduction="none")
        return {
            "giou": self.settings.giou * giou,
            "smooth_l1": self.settings.smooth_l1 * distance.mean(dim=1),
        }

    def _predicted(self, image: Tensor) -> Tensor:
        """(N,4) cx, cy, w, h in (0,1), averaged with the mirror image's if `flip` is set."""
        predicted = self._centre_and_size(image)
        if not self.settings.flip:
            return predicted
        x, *others = self._centre_and_size(image.flip(3)).unbind(1)
        return (predicted + torch.stack([1 - x, *others], dim=1)) / 2

    def _centre_and_size(self, image: Tensor) -> Tensor:
        """(N,4) cx, cy, w, h in (0,1)."""
        return torch.sigmoid(self.head(feature_maps(self.backbone, image, 1)[-1]))


def _refined(detections: Detections, pixels: np.ndarray) -> Detections:
    size, (box,) = pixels.shape[1::-1], detections.boxes.double().cpu().numpy()
    refined = rescale(refine_box(pixels, rescale(box, (1, 1), size)), size, (1, 1))
    return replace(detections, boxes=torch.from_numpy(refined).to(detections.boxes)[None])
