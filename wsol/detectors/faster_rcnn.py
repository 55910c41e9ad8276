"""torchvision's Faster R-CNN on a timm backbone."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from robust_training.autograd.batch_norm import attribute_set
from robust_training.models.classifier import Classifier
from wsol.detectors.base import Detections, Detector, Network, corner_scale, feature_maps, stages


@dataclass(frozen=True)
class FasterRCNN(Detector):
    """Boxes with classes: Faster R-CNN (Ren et al., 2015) on a feature pyramid (Lin et al., 2017).

    Attributes:
        levels: Number of the backbone's last stages in the pyramid. It adds one coarser level.
        width: Channels of the pyramid. The layers of the box head have four times as many.
        anchor: Side of an anchor in strides of its level.
        most: Largest number of boxes kept in an image.
    """

    levels: int = 3
    width: int = 64
    anchor: float = 4.0
    most: int = 10

    def __post_init__(self) -> None:
        if self.levels < 1 or self.width < 1 or self.most < 1 or not self.anchor > 0:
            raise ValueError(
                "FasterRCNN: levels, width and most must be at least 1, anchor above 0"
            )

    def build(self, backbone: Classifier, class_names: list[str]) -> Network:
        return _FasterRCNNNetwork(self, backbone, class_names)


class _FasterRCNNNetwork(Network):
    predicts_classes = True

    def __init__(self, settings: FasterRCNN, backbone: Classifier, class_names: list[str]) -> None:
        super().__init__(settings, backbone, class_names)
        pyramid = _Pyramid(backbone, settings.levels, settings.width)
        names = [str(level) for level in range(settings.levels)]
        pooling = MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2)
        sides = [settings.anchor * stride for stride in pyramid.strides]
        hidden = 4 * settings.width
        self.detector = TorchvisionFasterRCNN(
            pyramid,
            min_size=backbone.image_size,
            max_size=backbone.image_size,
            image_mean=[0.0] * 3,  # the backbone normalises images itself
            image_std=[1.0] * 3,
            rpn_anchor_generator=AnchorGenerator(
                tuple((round(side),) for side in sides), ((0.5, 1.0, 2.0),) * len(sides)
            ),
            box_roi_pool=pooling,
            box_head=TwoMLPHead(settings.width * 7**2, hidden),
            box_predictor=FastRCNNPredictor(hidden, len(class_names) + 1),  # 0 is background
            # an image shows one object: an eighth of the usual numbers for COCO
            rpn_pre_nms_top_n_train=256,
            rpn_pre_nms_top_n_test=256,
            rpn_post_nms_top_n_train=256,
            rpn_post_nms_top_n_test=128,
            rpn_batch_size_per_image=32,
            box_batch_size_per_image=64,
            box_score_thresh=0.0,  # every image shows an object
            box_detections_per_img=settings.most,
            _skip_resize=True,  # images come at the backbone's size
        )

    def forward(self, image: Tensor) -> list[Detections]:
        sides = corner_scale(image)
        return [
            Detections(each["boxes"] / sides, each["labels"] - 1, each["scores"])
            for each in self.detector(list(image))
        ]

    def losses(self, image: Tensor, box: Tensor, label: Tensor) -> dict[str, Tensor]:
        pairs = zip(box * corner_scale(image), label, strict=True)
        targets = [{"boxes": each[None], "labels": kind[None] + 1} for each, kind in pairs]
        # torchvision computes losses in training mode only; other layers keep their mode
        parts = (self.detector, self.detector.rpn, self.detector.roi_heads)
        with attribute_set(parts, "training", True):
            return self.detector(list(image), targets)


class _Pyramid(nn.Module):
    """Images (N,3,H,W) -> maps by name, from fine to coarse. The last is for proposals only."""

    def __init__(self, backbone: Classifier, levels: int, width: int) -> None:
        super().__init__()
        known = stages(backbone)
        if levels > len(known):
            raise ValueError(f"levels of FasterRCNN must be at most {len(known)}, not {levels}")
        self.body = backbone
        self.levels = levels
        self.out_channels = width
        strides = [stage["reduction"] for stage in known[-levels:]]
        self.strides = [*strides, 2 * strides[-1]]
        channels = [stage["num_chs"] for stage in known[-levels:]]
        self.pyramid = FeaturePyramidNetwork(channels, width, LastLevelMaxPool())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = feature_maps(self.body, image, self.levels)
        return self.pyramid(OrderedDict((str(level), each) for level, each in enumerate(maps)))
