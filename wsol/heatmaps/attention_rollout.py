"""Attention rollout of Vision Transformers."""

from dataclasses import dataclass

import numpy as np
import torch
from timm.utils import AttentionExtract
from torch import Tensor

from robust_training.models.classifier import Classifier
from wsol.heatmaps.heatmap import HeatmapMethod, private_copy
from wsol.heatmaps.patch_tokens import last_block, patch_heatmaps, require_patch_tokens, to_grid


@dataclass(frozen=True)
class AttentionRollout(HeatmapMethod):
    """The attention that reaches the output from each patch (Abnar and Zuidema, ACL 2020).

    The attention of a block is the mean over its heads and the identity, which stands for the skip
    connection, half each. The product over all blocks is read at the class token, or as the mean
    over the patches if the head uses no class token. The map is the same for all classes.
    """

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        require_patch_tokens(model)
        network = private_copy(model)
        for module in network.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # the fused kernel does not return the attention
        extract = AttentionExtract(network.backbone, ["blocks.*.attn.attn_drop"], method="hook")
        with torch.no_grad():
            attention = [each.mean(dim=1) for each in extract(network.prepare(image)).values()]
        identity = torch.eye(attention[0].shape[1], device=image.device)
        rollout = identity
        for each in attention:
            rollout = (each + identity) / 2 @ rollout
        backbone = model.backbone
        by_class_token = backbone.global_pool == "token"
        sources = slice(0, 1) if by_class_token else slice(backbone.num_prefix_tokens, None)
        received = rollout[:, sources].mean(dim=1)
        return patch_heatmaps(to_grid(received[..., None], model, image)[:, 0].cpu().numpy(), image)

    def fits(self, model: Classifier) -> bool:
        return last_block(model) is not None
