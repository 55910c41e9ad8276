"""What a report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_training.models.classifier import Classifier
from wsol.data.dataset import ImageDataset
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scores import Headline
from wsol.heatmaps.heatmap import HeatmapMethod


@dataclass(frozen=True)
class Entry:
    """A scored model.

    Attributes:
        metrics: What `evaluation.score` said of it.
        dataset: The split that it was scored on.
        measured: The boxes of `methods` on that split, and what was predicted.
        headlines: Each heatmap's headline.
        folder: Where log.csv is, if the model was trained here.
    """

    model: Classifier
    methods: Mapping[str, HeatmapMethod]
    metrics: Mapping[str, Any]
    dataset: ImageDataset
    measured: SplitOutput
    headlines: Sequence[Headline]
    folder: Path
