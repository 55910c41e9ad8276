"""The metrics for training loops equal what evaluate.py prints, over any parts of a split."""

import contextlib
import io

import cv2
import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from tests.helpers.birds import birds, write_published
from tests.helpers.commands import ROOT
from tests.helpers.documents import PYTHON, blocks
from wsol import GTKnownLoc, MaxBoxAcc, MaxBoxAccV2, PxAP, Top1Loc
from wsol.evaluation import ScoringConfig
from wsol.experiments.evaluate_files import evaluate_scoremaps

IMAGES, STEP, THRESHOLD = 14, 0.01, 0.3


def metrics():
    return {
        "MaxBoxAcc": MaxBoxAcc(threshold_step=STEP),
        "MaxBoxAcc70": MaxBoxAcc(0.7, threshold_step=STEP),
        "MaxBoxAccV2": MaxBoxAccV2(threshold_step=STEP),
        "GT-known": GTKnownLoc(THRESHOLD),
        "Top-1": Top1Loc(THRESHOLD),
        "PxAP": PxAP(threshold_step=STEP),
    }


@pytest.fixture(scope="module")
def split():
    """Blobs near the boxes of images that are larger than their maps, and logits often right."""
    rng = np.random.default_rng(0)
    corner = rng.integers(2, 20, (IMAGES, 2))
    boxes = np.concatenate([corner, corner + rng.integers(12, 26, (IMAGES, 2))], axis=1)
    rows, columns = np.mgrid[:32, :48]
    maps, masks = [], []
    for x0, y0, x1, y1 in boxes / 1.5 + rng.normal(0, 2, boxes.shape):
        across = ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2
        blob = np.exp(-3 * (across + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2))
        blob += 0.1 * cv2.resize(rng.random((4, 6)), (48, 32))
        maps.append((blob - blob.min()) / np.ptp(blob))
        masks.append(blob > rng.uniform(0.4, 0.8))
    labels = np.arange(IMAGES) % 3
    logits = rng.normal(size=(IMAGES, 3)) + 1.5 * np.eye(3)[labels]
    return {
        "heatmaps": torch.tensor(np.array(maps)).float(),
        "boxes": torch.tensor(boxes).double(),
        "sizes": torch.tensor([[72, 48]] * IMAGES),
        "masks": torch.tensor(np.array(masks)).long(),
        "logits": torch.tensor(logits).float(),
        "labels": torch.tensor(labels),
    }


@pytest.fixture(scope="module")
def printed(split, tmp_path_factory):
    """Scores of the same heatmaps as files."""
    folder = tmp_path_factory.mktemp("files")
    boxes = [tuple(map(int, box)) for box in split["boxes"]]
    truth = birds(boxes, split["labels"].tolist(), size=(72, 48))
    write_published(folder / "metadata", truth)
    (folder / "maps").mkdir()
    (folder / "masks").mkdir()
    lines = []
    for index, name in enumerate(truth.names):
        np.save(folder / "maps" / f"{name}.npy", split["heatmaps"][index].numpy())
        mask = split["masks"][index].numpy()
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), (255 * mask).astype(np.uint8))
        order = split["logits"][index].argsort(descending=True)
        lines.append(f"{name},{','.join(map(str, order.tolist()))}")
    (folder / "predictions.txt").write_text("\n".join(lines))
    return evaluate_scoremaps(
        folder / "maps",
        folder / "metadata",
        predictions=folder / "predictions.txt",
        masks=folder / "masks",
        workers=0,
        scoring=ScoringConfig(threshold=THRESHOLD, threshold_step=STEP, ious=(0.5, 0.7)),
    ).metrics


def part(split, *rows):
    return {name: values[slice(*rows)] for name, values in split.items()}


def test_metrics_equal_evaluate_py(split, printed):
    each = MetricCollection(metrics())
    for start in range(0, IMAGES, 5):
        each.update(**part(split, start, start + 5))
    found = {name: value.item() for name, value in each.compute().items()}
    fixed, *_ = printed["localization"]
    reference = printed["reference"]["maps"]
    assert fixed["policy"] == f"fixed:{THRESHOLD}"
    assert found["GT-known"] == fixed["gt_known_loc"]
    assert found["Top-1"] == fixed["top1_loc"]
    assert 0 < found["Top-1"] < found["GT-known"] < 1
    assert found["MaxBoxAcc"] == reference["max_box_acc"]["0.5"]
    assert found["MaxBoxAcc70"] == reference["max_box_acc"]["0.7"]
    assert found["MaxBoxAccV2"] == reference["max_box_acc_v2"]
    assert found["PxAP"] == printed["pixels"]["maps"]["pxap"]


@pytest.mark.parametrize("name", metrics())
def test_processes_and_merged_parts_equal_the_whole(name, split):
    """The states of two processes are added as torchmetrics gathers them; so are merged ones."""
    whole, first, second, merged = (metrics()[name] for _ in range(4))
    for metric, *rows in ((whole, None), (first, 5), (second, 5, None), (merged, 5)):
        MetricCollection([metric]).update(**part(split, *rows))
    expected = whole.compute()
    assert expected.dtype == torch.float64
    merged.merge_state(second)
    assert merged.compute() == expected
    others = iter(second.metric_state.values())
    first.distributed_available_fn = lambda: True
    first.dist_sync_fn = lambda value, group: [value, next(others)]
    assert first.compute() == expected
    first.reset()
    first.distributed_available_fn = lambda: False
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert first.compute().isnan()


def test_a_collection_keeps_apart_metrics_that_begin_alike(split):
    """MetricCollection joins metrics with equal states after the first batch."""
    same = {"boxes": [[0, 0, 4, 4]], "sizes": [[8, 8]], "logits": torch.eye(1, 2)}
    heatmap = torch.zeros(1, 8, 8)
    heatmap[0, :4, :4] = 1
    collection = MetricCollection(
        {"low": GTKnownLoc(0.2), "high": GTKnownLoc(0.8), "top": Top1Loc(0.2)}
    )
    collection.update(heatmaps=heatmap, labels=[0], **same)
    assert all(value == 1 for value in collection.compute().values())
    collection.update(heatmaps=heatmap, labels=[1], **same)
    heatmap[0, 4:] = 0.5  # above 0.2 of the maximum, not above 0.8
    collection.update(heatmaps=heatmap, labels=[0], **same)
    found = {name: value.item() for name, value in collection.compute().items()}
    assert found == pytest.approx({"low": 2 / 3, "high": 1, "top": 1 / 3})


def test_pixels_that_are_not_scored_and_several_boxes():
    metric = PxAP()
    metric.update([[[0.9, 0.1, 0.5, 1.0]]], [[[1, 1, 0, -1]]])
    assert metric.compute().item() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    heatmap = torch.zeros(2, 8, 8, dtype=torch.bfloat16)
    heatmap[:, 2:6, 2:6] = 1
    metric = GTKnownLoc(0.2)
    boxes = [[[0, 0, 1, 1], [4, 4, 12, 12]], torch.tensor([12, 12, 16, 16])]
    metric.update(heatmap, boxes, [[16, 16]] * 2)
    assert metric.compute() == 0.5


BATCH = {"heatmaps": np.ones((2, 4, 4)), "boxes": [[0, 0, 2, 2]] * 2, "sizes": [[4, 4]] * 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmaps": 2 * np.ones((2, 4, 4))}, r"number 0 of the batch: .*\[0,1\]"),
        ({"heatmaps": np.ones((2, 1, 4, 4))}, r"shape \(H,W\), not \(1, 4, 4\)"),
        ({"boxes": [[0, 0, 2, 2], []]}, "number 1 has no box"),
        ({"boxes": [[], []]}, "without a true box"),
        ({"boxes": [[0, 0, 2, 2], [0, 9, 2, 12]]}, "0,9,2,12 of number 1 does not lie"),
        ({"boxes": [[0, 0, 2, 2]]}, "2 heatmaps need as many boxes"),
        ({"sizes": [4, 4]}, r"width, height.*\(2,\)"),
        ({"labels": [0]}, r"2 heatmaps need as many logits.*\(1,\)"),
        ({"logits": torch.zeros(2)}, r"logits \(N,C\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    metric = Top1Loc(0.5)
    with pytest.raises(ValueError, match=message):
        metric.update(**BATCH | {"logits": torch.zeros(2, 3), "labels": [0, 0]} | change)
    assert metric.images == 0


@pytest.mark.parametrize(
    ("heatmap", "mask"), [([[2.0]], [[1]]), ([[0.5]], [[255]]), ([[0.5]], [[1, 1]])]
)
def test_pixels_that_do_not_fit_are_refused(heatmap, mask):
    with pytest.raises(ValueError, match="heatmaps"):
        PxAP().update([heatmap], [mask])


@pytest.mark.parametrize(
    "make", [lambda: GTKnownLoc(1.5), lambda: MaxBoxAcc(-0.1), lambda: PxAP(threshold_step=0)]
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()


def test_the_example_of_the_page_prints_its_numbers():
    (block,) = (
        block
        for block in blocks(ROOT / "docs" / "protocols.md")
        if block.language == PYTHON and "GTKnownLoc" in block.text
    )
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(block.text, block.place, "exec"), {})
    assert output.getvalue().split("\n")[:-1] == block.text.split("# ")[-1:]
