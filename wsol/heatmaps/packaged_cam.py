"""Class activation methods of the package grad-cam (pytorch-grad-cam), an optional dependency."""

from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from robust_training.attribution.class_activation import has_class_activation
from robust_training.models.classifier import Classifier
from wsol.heatmaps.heatmap import HeatmapMethod, min_max, private_copy
from wsol.heatmaps.patch_tokens import last_block, to_grid


@dataclass(frozen=True)
class PackagedCAM(HeatmapMethod):
    """A class activation method of pytorch-grad-cam, with the package's own settings.

    The layer is the last spatial feature map, before the head's pooling. In a Vision Transformer it
    is the first normalisation of the last block, as the package's documentation recommends. Score-
    CAM and Ablation-CAM run the network once for each channel of that layer.

    Attributes:
        kind: The name of a class in `pytorch_grad_cam`, for example "GradCAM".
    """

    kind: str

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        package, network = _package(), private_copy(model)
        block, reshape = last_block(network), None
        if block is None:
            ablation, whole, layer = package.AblationLayer(), _Staged(network), _Leaf()
            whole.features = layer
        else:
            ablation, whole = package.AblationLayerVit(), network
            layer = block.norm1 = nn.Sequential(block.norm1, _Leaf())

            def reshape(tokens: Tensor) -> Tensor:
                return to_grid(tokens, model, image)

        cam = getattr(package, self.kind)(whole, [layer], reshape)
        cam.ablation_layer = ablation  # of Ablation-CAM, whose default is one object for all calls
        targets = [package.utils.model_targets.ClassifierOutputTarget(each) for each in label]
        with torch.enable_grad():
            return min_max(cam(image, targets).astype(np.float64))

    def fits(self, model: Classifier) -> bool:
        """Whether the network has a spatial feature map or patch tokens. Raises ValueError if the
        package is not installed."""
        _package()
        return last_block(model) is not None or has_class_activation(model)


class _Leaf(nn.Module):
    """The layer that is explained. Gradients end here, so they are not computed further back."""

    def forward(self, features: Tensor) -> Tensor:
        return features.detach().requires_grad_()


class _Staged(nn.Module):
    """A classifier with a layer `features` between its feature map and its head."""

    features: nn.Module

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        backbone = self.model.backbone
        features = backbone.forward_features(self.model.prepare(image))
        return backbone.forward_head(self.features(features))


def _package() -> ModuleType:
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam import ablation_cam, score_cam
    except ImportError as error:
        raise ValueError(
            "this heatmap method needs the package grad-cam: pip install 'wsol[cam]'"
        ) from error
    # both show a progress bar for every image, and have no option for it
    score_cam.tqdm = ablation_cam.tqdm = SimpleNamespace(tqdm=iter)
    return pytorch_grad_cam
