"""One box for each image, whatever its class."""

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

    A 1 x 1 convolution, pooling to a grid, and one linear layer to centre and size, each behind a
    sigmoid. It starts as the centred box of half the image's sides.

    Attributes:
        grid: Cells on each side that the features are pooled to: 1 is PSOL's global pooling.
        width: Channels of the convolution.
        giou: Weight of the generalized IoU loss (Rezatofighi et al., CVPR 2019).
        smooth_l1: Weight of the smooth L1 distance of centres and sizes, shares of the image.
        beta: Distance below which that is quadratic.
        flip: Boxes found are the mean of the image's and its mirror image's, at twice the cost.
        refine: Boxes that `find` gives are drawn halfway to the region of like colours that grows
            from their middle (`refine_box`), at a grabCut on the CPU for each image.
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
        found = self._centre_and_size(image)
        if self.settings.flip:
            x, *others = self._centre_and_size(image.flip(3)).unbind(1)
            found = (found + torch.stack([1 - x, *others], dim=1)) / 2
        boxes = box_convert(found, "cxcywh", "xyxy").clamp(0, 1)
        return [Detections(box[None], None, box.new_ones(1)) for box in boxes]

    def detect(self, image: Tensor) -> list[Detections]:
        found = self(image)
        if not self.settings.refine:
            return found
        return [self._refined(*pair) for pair in zip(found, to_pixels(image), strict=True)]

    def _refined(self, found: Detections, pixels: np.ndarray) -> Detections:
        shape, (box,) = pixels.shape[1::-1], found.boxes.double().cpu().numpy()
        refined = rescale(refine_box(pixels, rescale(box, (1, 1), shape)), shape, (1, 1))
        return replace(found, boxes=torch.from_numpy(refined).to(found.boxes)[None])

    def losses(self, image: Tensor, box: Tensor, label: Tensor) -> dict[str, Tensor]:
        found = self._centre_and_size(image)
        corners = box_convert(found, "cxcywh", "xyxy")
        giou = generalized_box_iou_loss(corners, box, reduction="mean")
        wanted = box_convert(box, "xyxy", "cxcywh")
        distance = F.smooth_l1_loss(found, wanted, beta=self.settings.beta)
        return {
            "giou": self.settings.giou * giou,
            "smooth_l1": self.settings.smooth_l1 * distance,
        }

    def _centre_and_size(self, image: Tensor) -> Tensor:
        """(N,4) cx, cy, w, h in (0,1)."""
        return torch.sigmoid(self.head(feature_maps(self.backbone, image, 1)[-1]))
