"""Pictures of gradient maps before and after an attack, side by side for each run."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.dataset import spread_evenly
from wsol.data.inputs import to_pixels
from wsol.evaluation.results import Evaluation
from wsol.localizer.overlay import PREDICTED, blend, draw_boxes, enlarged
from wsol.report.gallery import picture
from wsol.robustness.under_attack import attacked_method

_IMAGES = 6
_SIDE = 320  # pixels of a picture


def attacked_maps(evaluations: Mapping[str, Evaluation]) -> str:
    """HTML: a row for each of six test images, and two columns for each attacked run. All runs have
    the same images. Empty without any attack on maps.

    The images are spread evenly over the split. The attack is the first one on maps. The boxes are
    those of `attacked_method` at the threshold of the scores under attack."""
    attacked = {run: each for run, each in evaluations.items() if each.map_attack is not None}
    if not attacked:
        return ""
    dataset = next(iter(attacked.values())).dataset
    items = [dataset[index] for index in spread_evenly(len(dataset), _IMAGES)]
    image = torch.stack([item["image"] for item in items])
    label = torch.tensor([item["label"] for item in items])
    columns = {"image": [picture(enlarged(each)[0], side=_SIDE) for each in to_pixels(image)]}
    for run, evaluation in attacked.items():
        columns[run] = _pictures(evaluation, image, label)
        columns[f"{run}, attacked"] = _pictures(
            evaluation, _attacked(evaluation, image, label), label
        )
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in columns)
    rows = "".join(
        "<tr>" + "".join(f'<td><img src="{source}" alt=""></td>' for source in row) + "</tr>"
        for row in zip(*columns.values(), strict=True)
    )
    return f'<div class="scroll"><table class="maps"><tr>{heads}</tr>{rows}</table></div>'


def _attacked(evaluation: Evaluation, image: Tensor, label: Tensor) -> Tensor:
    torch.manual_seed(0)
    device = evaluation.model.device
    return evaluation.map_attack(evaluation.model, image.to(device), label.to(device)).image.cpu()


def _pictures(evaluation: Evaluation, image: Tensor, label: Tensor) -> Sequence[str]:
    device = evaluation.model.device
    method = attacked_method(evaluation.map_attack)
    heatmaps = method(evaluation.model, image.to(device), label.to(device))
    found = evaluation.metrics["robustness"]["maps"][0].get("boxes")
    drawn = []
    for pixels, heatmap in zip(to_pixels(image), heatmaps, strict=True):
        photo, scale = enlarged(pixels)
        boxes = [] if found is None else largest_boxes(heatmap, [found["threshold"]])
        marks = [(scale * np.asarray(box, float), PREDICTED) for box in boxes]
        drawn.append(picture(draw_boxes(blend(photo, heatmap), marks), side=_SIDE))
    return drawn
