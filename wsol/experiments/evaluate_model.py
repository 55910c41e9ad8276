"""Evaluates a model: accuracy, localization scores, spurious correlations, robustness, a report."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from robust_training.models.classifier import Classifier
from robust_training.training.log import read_log
from robust_training.training.validation import training_notes
from wsol.cli.parser import output_folder
from wsol.data.loaders import DataConfig
from wsol.evaluation import ScoringConfig
from wsol.evaluation.metrics import HIT, mean_interval
from wsol.evaluation.pixel_metrics import require_masks
from wsol.evaluation.results import Evaluation, Headline, write_scores
from wsol.evaluation.run_model import SplitOutput, run_model
from wsol.evaluation.scores import accuracies, score_heatmaps
from wsol.evaluation.split_selection import EvaluationSplits, PreparedSplit, prepare_evaluation
from wsol.heatmaps.heatmap import HeatmapMethod
from wsol.heatmaps.methods import DEFAULT, baseline_of, name_of, with_baselines
from wsol.localizer.principal_component import component_finder
from wsol.localizer.saved_models import ART_THRESHOLD, load_classifier
from wsol.localizer.unboxed_threshold import run_unboxed_threshold, unboxed_threshold
from wsol.report import write_report
from wsol.robustness.spurious_correlation import (
    SpuriousCues,
    read_spurious_cues,
    spurious_correlation,
)
from wsol.robustness.under_attack import RobustnessConfig, attacked_method, measure_robustness

_SCORING = ScoringConfig()


def evaluate(
    model: Classifier | str | os.PathLike,
    data: DataConfig | str | os.PathLike | None = None,
    methods: Sequence[str] = DEFAULT,
    *,
    scoring: ScoringConfig = _SCORING,
    robustness: RobustnessConfig | None = None,
    mirrored: bool = False,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    output: str | os.PathLike | None = None,
) -> Evaluation:
    """Evaluates a model on the test images of a data set.

    Computes accuracy and, for each heatmap method, GT-known, Top-1 and Top-5 localization under
    every threshold policy. Each method is compared with its baseline. If the data set has
    backgrounds.txt or null_patches.txt, spurious correlations are also measured.

    Args:
        model: A classifier, a run's folder, or a model folder.
        data: A data set's folder or settings; test images are enough. If None, the data set that
            the run was trained on. On another one, the threshold of the policy val is the one that
            the run chose on its own validation images.
        methods: Names of heatmap methods, see `wsol.heatmaps.methods`. Baselines are added.
        scoring: Thresholds, IoU thresholds and seed.
        robustness: Attacks on maps, boxes and predictions. If None, nothing is attacked.
        mirrored: Whether classes are predicted by the mean probability of an image and its mirror
            image. Heatmaps are not affected.
        batch_size: Number of images in a batch.
        device: Device on which the model runs.
        output: Folder for metrics.json, images.csv, coco/ and report.html. If None, no file is
            written. Scores are written before the attacks begin, and again with their results.

    Returns:
        Scores (`metrics`), the boxes of each method (`headlines`), and rows for each image
        (`image_rows()`).

    Raises:
        ValueError: the model, the data, the settings and the output do not fit together. Most
            settings and files are checked before the work begins.
    """
    plan = plan_evaluation(
        model,
        data,
        methods,
        scoring=scoring,
        robustness=robustness,
        mirrored=mirrored,
        batch_size=batch_size,
        output=output,
    )
    return plan.run(device)


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation with checked model, data and settings.

    Attributes:
        folder: Folder of the run or model. None if the model has no folder.
        splits: The images to score, and the threshold that is given in advance.
        methods: Name -> heatmap method. Empty if no image has a true box.
        cues: The data set's information about spurious correlations, if it has any.
        output: Writable folder of the results. If None, no file is written.
        notes: Sentences for the user, for example about images that are left out.
    """

    name: str
    folder: Path | None
    model: Classifier
    splits: EvaluationSplits
    methods: Mapping[str, HeatmapMethod]
    scoring: ScoringConfig
    cues: SpuriousCues | None
    robustness: RobustnessConfig | None
    mirrored: bool
    output: str | os.PathLike | None
    notes: tuple[str, ...]

    def run(
        self, device: str | torch.device = "cpu", fabric: Fabric | None = None
    ) -> Evaluation | None:
        """Runs the evaluation; `evaluate` documents the result. The processes of `fabric` divide
        heatmaps and predictions among them; without it there is one process. The first process does
        the rest; in all others the result is None."""
        scoring, splits = self.scoring, self.splits
        model = self.model.to(device, memory_format=torch.channels_last).eval()
        test = self._run_split("test", splits.test, fabric)
        validation = splits.validation and self._run_split("val", splits.validation, fabric)
        title = f"{self.name}: all test images"
        everything = splits.all_test and run_model(
            model, splits.all_test, {}, mirrored=self.mirrored, description=title, fabric=fabric
        )
        if test is None:  # this is not the first process
            return None
        scores = score_heatmaps(
            test,
            validation,
            thresholds=scoring.thresholds,
            chosen=splits.chosen,
            fixed=splits.threshold,
            unboxed=self._unboxed(model),
            iou_thresholds=scoring.ious,
            seed=scoring.seed,
        )
        metrics = {
            "model": None if self.folder is None else str(self.folder),
            "data": splits.data.as_dict(),
            "settings": {
                **dataclasses.asdict(scoring),
                "methods": list(self.methods),
                "robustness": self.robustness is not None,
                "mirrored": self.mirrored,
                "device": str(device),
            },
        }
        if splits.chosen:
            metrics["chosen_thresholds"] = dict(splits.chosen)
        baselines = above_baselines(scores.headlines, seed=scoring.seed)
        if baselines:
            metrics["baselines"] = baselines
        if self.cues is not None:
            metrics["spurious_correlation"] = spurious_correlation(
                model, splits.test.loader, self.cues, test.correct(1), seed=scoring.seed
            )
        if everything:
            metrics["all_test_images"] = {"images": len(everything.truth), **accuracies(everything)}
        evaluation = Evaluation(
            metrics=scores.metrics | metrics,
            headlines=scores.headlines,
            output=test.largest_boxes_only(),
            name=self.name,
            model=model,
            methods=self.methods,
            dataset=splits.test.dataset,
            folder=self.folder,
        )
        if self.robustness is not None:
            write_scores(self.output, evaluation)  # attacks take a long time
            chosen = {each.row.heatmap: each.row.threshold for each in scores.headlines}
            attacked = measure_robustness(
                model,
                splits.test.loader,
                [chosen.get(name, ART_THRESHOLD) for name in _attacked_heatmaps(self.robustness)],
                self.robustness,
                others={name: (self.methods[name], chosen[name]) for name in chosen},
                seed=scoring.seed,
            )
            first = next(iter(self.robustness.maps), None)
            evaluation = replace(evaluation, map_attack=first)
            evaluation = evaluation.with_metrics({"robustness": attacked})
        write_scores(self.output, evaluation)
        if self.output is not None:
            write_report(Path(self.output) / "report.html", {self.name: evaluation})
        return evaluation

    def _unboxed(self, model: Classifier) -> dict[str, float]:
        """Heatmap -> threshold of the policy "unboxed"; a run's best/ keeps it for localizing."""
        images, found = self.splits.choosing, {}
        if images is not None:
            own = self.folder is not None and (self.folder / "config.yaml").is_file()
            for name, method in self.methods.items():
                chosen = (
                    run_unboxed_threshold(self.folder, model, method, name)
                    if own
                    else unboxed_threshold(model, method, images)
                )
                found |= {} if chosen is None else {name: chosen}
        return found

    def _run_split(
        self, name: str, split: PreparedSplit, fabric: Fabric | None
    ) -> SplitOutput | None:
        is_test = name == "test"
        return run_model(
            self.model,
            split,
            self.methods,
            thresholds=self.scoring.thresholds if is_test else None,
            every_box=self.scoring.v2 and is_test,
            mirrored=self.mirrored,
            description=f"{self.name}: {name}",
            fabric=fabric,
        )


def plan_evaluation(
    model: Classifier | str | os.PathLike,
    data: DataConfig | str | os.PathLike | None = None,
    methods: Sequence[str] = DEFAULT,
    *,
    scoring: ScoringConfig = _SCORING,
    robustness: RobustnessConfig | None = None,
    mirrored: bool = False,
    batch_size: int = 32,
    output: str | os.PathLike | None = None,
) -> EvaluationPlan:
    """Checks an evaluation before its work begins; `evaluate` documents the arguments. Raises
    ValueError if the classes of model and data differ; images, boxes, masks or files about spurious
    correlations are not valid; maps are too small or classes too few for the attacks; or the output
    folder is not writable."""
    wanted = with_baselines([*methods, *(_attacked_heatmaps(robustness) if robustness else [])])
    folder = None if isinstance(model, Classifier) else Path(model)
    if folder is not None:
        model = load_classifier(folder)
    if output is not None:
        output_folder(output)
    splits = prepare_evaluation(
        folder, model, data, batch_size=batch_size, threshold=scoring.threshold, test_alone=True
    )
    test = splits.test
    if robustness is not None:
        robustness.require_size(model.image_size)
        robustness.require_runnable(model.num_classes)
    find = component_finder(folder, model, splits.data)
    fitting = {
        title: method.with_component(find) for title, method in wanted.items() if method.fits(model)
    }
    if robustness is not None:
        robustness = robustness.with_component(find)
    unfit = [f"{title} does not work with this network" for title in wanted if title not in fitting]
    missing = [title for title in fitting if splits.chosen and title not in splits.chosen]
    if missing and splits.threshold is None and splits.choosing is None and splits.boxed:
        splits = replace(splits, threshold=ART_THRESHOLD)
        unfit.append(
            f"the run chose no threshold on validation images for {', '.join(missing)}: the "
            f"policies fixed ({ART_THRESHOLD:g}; --threshold gives another) and oracle remain there"
        )
    require_masks(test.truth)
    log = read_log(folder)
    return EvaluationPlan(
        name="model" if folder is None else folder.resolve().name,
        folder=folder,
        model=model,
        splits=splits,
        methods=fitting if splits.boxed else {},
        scoring=scoring,
        cues=read_spurious_cues(test.dataset, test.truth.sizes),
        robustness=robustness,
        mirrored=mirrored,
        output=output,
        notes=(*splits.notes, *unfit, *training_notes(log)),
    )


def above_baselines(headlines: Sequence[Headline], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Compares GT-known of each heatmap with GT-known of its baseline. All numbers are fractions.

    The interval is for paired differences: each bootstrap resample has the same images for both.

    Args:
        headlines: Boxes on the same images, with the names of `wsol.heatmaps.methods`. The
            baselines of all heatmaps must be among them. Baselines have no entry in the result.

    Returns:
        Heatmap -> its baseline, policy, both scores, their difference and its 95 % interval.
    """
    hits = {each.row.heatmap: each.iou >= HIT for each in headlines}
    compared = {}
    for headline in headlines:
        name = headline.row.heatmap
        baseline = baseline_of(name)
        if baseline == name:
            continue
        difference = hits[name].astype(np.float64) - hits[baseline]
        compared[name] = {
            "baseline": baseline,
            "policy": headline.row.policy,
            "gt_known_loc": float(hits[name].mean()),
            "baseline_gt_known_loc": float(hits[baseline].mean()),
            "difference": float(difference.mean()),
            "interval": mean_interval(difference, seed=seed).tolist(),
        }
    return compared


def _attacked_heatmaps(robustness: RobustnessConfig) -> list[str]:
    """For each attack on maps, the name of the heatmap that gives the boxes under this attack."""
    return [name_of(attacked_method(attack)) for attack in robustness.maps]


def require_comparable(plans: Sequence[EvaluationPlan], *, same_images: bool) -> None:
    """Raises ValueError if two runs have the same name or, with `same_images`, other images."""
    names = [plan.name for plan in plans]
    for plan in plans:
        if names.count(plan.name) > 1:
            raise ValueError(f"two runs are called {plan.name}; rename one folder")
        if same_images and plan.splits.test.truth.names != plans[0].splits.test.truth.names:
            raise ValueError(f"{plan.name} is scored on other images: evaluate each run alone")
