"""Box predictors: classifiers with a heatmap method, exported models, and detectors."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor

from robust_training.models.classifier import Classifier
from wsol.boxes.heatmap_boxes import outer_boxes, to_float32
from wsol.detectors.base import Network
from wsol.heatmaps.heatmap import HeatmapMethod
from wsol.heatmaps.methods import LOCALIZER, find_method
from wsol.localizer.exported_program import Program
from wsol.localizer.localization import OBJECT
from wsol.localizer.saved_models import ART_THRESHOLD

_IMAGENET_WEIGHTS = re.compile(r"in\d+k")  # in timm's name of weights, for example "a1_in1k"
Labels = Sequence[int | None]  # the class to look for in each image; None is the predicted class
Explanations = tuple[Tensor, list[int], np.ndarray]  # probabilities, explained classes, heatmaps


@dataclass(frozen=True)
class Prediction:
    """Boxes in one image at the network's size.

    Attributes:
        boxes: (K,4) half-open xyxy in an image of size `frame`, the best first.
        scores: A score for each box, in [0,1].
        frame: (width, height) of the boxes' coordinate system.
        heatmap: float32 (S,S) in [0,1], or None.
    """

    boxes: np.ndarray
    scores: Sequence[float]
    frame: tuple[int, int]
    label: int | None
    heatmap: np.ndarray | None = None


@dataclass(frozen=True)
class BoxPredictor:
    """A network, and the function that predicts boxes with it.

    Attributes:
        image_size: Side of the network's square input, in pixels.
        class_names: Class names in label order: the model's, or ImageNet's for timm's ImageNet
            weights, or else numbers as text.
        predict: Takes images (N,3,S,S) in [0,1], labels, and the maximum number of boxes, and
            returns a prediction for each image. It has no state, so several threads may call it.
        predicts_classes: Whether labels can be given.
        method: The heatmap method. None if it cannot be chosen.
        threshold: A box encloses pixels above this fraction of the heatmap's maximum. None without
            heatmaps.
    """

    model: object
    image_size: int
    class_names: Sequence[str]
    predict: Callable[[Tensor, Labels, int], Iterable[Prediction]]
    predicts_classes: bool = True
    method: HeatmapMethod | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0,1], not {self.threshold}")


def box_predictor(
    model: Classifier | Network | Program | BoxPredictor,
    method: HeatmapMethod | str | None,
    threshold: float | None,
) -> BoxPredictor:
    """Makes a predictor from a network; `Localizer` describes the arguments. Raises ValueError if
    the network has an unknown type, or does not use a method or threshold."""
    if isinstance(model, Network | BoxPredictor):
        if method is not None or threshold is not None:
            raise ValueError("a detector makes no heatmaps: leave out method and threshold")
        if isinstance(model, BoxPredictor):
            return model
        model.eval().to(memory_format=torch.channels_last)  # faster, on CPUs too
        names = model.class_names if model.predicts_classes else [OBJECT]
        predict = partial(_predict_by_detector, model)
        return BoxPredictor(
            model, model.backbone.image_size, names, predict, model.predicts_classes
        )
    if isinstance(model, Program):
        if method is not None:
            raise ValueError("an exported localizer has its own heatmap method: leave method out")
        threshold = model.threshold if threshold is None else threshold
        names, explain = model.class_names, partial(explain_by_program, model)
    elif isinstance(model, Classifier):
        if not isinstance(method, HeatmapMethod):
            method = find_method(LOCALIZER if method is None else method)
        if model.num_classes < 1:
            raise ValueError("the model has no classes to localize: it is a backbone without head")
        if not method.fits(model):
            raise ValueError(f"{method} does not work with {model.architecture}; use gradient maps")
        model.eval().to(memory_format=torch.channels_last)
        threshold = ART_THRESHOLD if threshold is None else threshold
        numbers = [*map(str, range(model.num_classes))]
        names = model.class_names or _imagenet_names(model) or numbers
        explain = partial(explain_by_classifier, model, method)
    else:
        raise ValueError(
            f"{type(model).__name__} is not a Classifier: robust_training.wrap_model makes one "
            "from any network that returns logits"
        )
    return BoxPredictor(
        model,
        model.image_size,
        names,
        partial(_predict_around_heatmaps, explain, threshold),
        method=method,
        threshold=threshold,
    )


def _imagenet_names(model: Classifier) -> list[str] | None:
    """Names of ImageNet's classes from timm, if timm's weights have exactly these classes.

    A class has its first name, "tabby" of "tabby, tabby cat". If another class has it too, it has
    all its names.
    """
    config = getattr(model.backbone, "pretrained_cfg", {})
    subset = infer_imagenet_subset({"num_classes": model.num_classes})
    if subset is None or not _IMAGENET_WEIGHTS.search(config.get("tag") or ""):
        return None
    names = ImageNetInfo(subset).label_descriptions()
    first = [each.partition(",")[0] for each in names]
    count = Counter(first)
    return [long if count[short] > 1 else short for short, long in zip(first, names, strict=True)]


def explain_by_classifier(
    model: Classifier, method: HeatmapMethod, images: Tensor, labels: Labels
) -> Explanations:
    """Explains the given or else the predicted classes. Heatmaps are (N,S,S) in [0,1]."""
    images = images.to(model.device)
    with torch.no_grad():
        probability = _probability(model(images))
    pairs = zip(labels, probability.argmax(dim=1).tolist(), strict=True)
    explained = [predicted if label is None else label for label, predicted in pairs]
    return probability, explained, method(model, images, torch.tensor(explained).to(images.device))


def explain_by_program(program: Program, images: Tensor, labels: Labels) -> Explanations:
    """Explains the predicted classes like `explain_by_classifier`. Raises ValueError if a label is
    not the predicted class. Exported models explain only this class."""
    logits, heatmaps = program(images)
    probability = _probability(logits)
    predicted = probability.argmax(dim=1).tolist()
    if any(label not in (None, p) for label, p in zip(labels, predicted, strict=True)):
        raise ValueError("an exported localizer makes heatmaps of the predicted class only")
    return probability, predicted, heatmaps.numpy()


def _predict_around_heatmaps(
    explain: Callable[[Tensor, Labels], Explanations],
    threshold: float,
    images: Tensor,
    labels: Labels,
    count: int,
) -> Iterator[Prediction]:
    probability, explained, heatmaps = explain(images, labels)
    column = torch.tensor(explained, device=probability.device)[:, None]
    scores = probability.gather(1, column)[:, 0].tolist()
    for heatmap, label, score in zip(heatmaps, explained, scores, strict=True):
        boxes = outer_boxes(heatmap, threshold)[:count]
        frame, single = heatmap.shape[::-1], to_float32(heatmap)
        yield Prediction(boxes, [score] * len(boxes), frame, label, single)


def _predict_by_detector(
    network: Network, images: Tensor, labels: Labels, count: int
) -> Iterator[Prediction]:
    """Predicts the most probable boxes of the given class. If the class has no box, predicts the
    most probable box of all classes with score 0, as evaluation does."""
    with torch.no_grad():
        detections = [each.cpu() for each in network.detect(images.to(network.backbone.device))]
    for label, found in zip(labels, detections, strict=True):
        if label is None and found.labels is not None and len(found.labels):
            label = int(found.labels[0])
        boxes, scores = (found.boxes, found.scores) if label is None else found.of_class(label)
        boxes = boxes[:count].double().numpy()
        yield Prediction(boxes, scores[:count].tolist(), (1, 1), label)


def _probability(logits: Tensor) -> Tensor:
    """Softmax (N,C). Raises ValueError if a probability is not finite."""
    probability = logits.softmax(dim=1)
    if not probability.isfinite().all():
        raise ValueError("the model's probabilities are not finite: its weights are damaged")
    return probability
