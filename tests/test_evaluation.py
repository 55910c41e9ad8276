"""Scores of other programs' maps and boxes: equal to the published evaluator, honest, exact."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.boxes import iou, published_truth
from wsol.coco import average_precision, coco_results, coco_truth, read_coco_results
from wsol.errors import KINDS, ErrorKinds
from wsol.evaluation import score, score_given
from wsol.map_boxes import read_off, stack
from wsol.measuring import Measured
from wsol.metadata import published_metadata, read_truth
from wsol.pixels import bin_edges, pixel_counts, pixel_scores, read_mask
from wsol.predictions import Predictions, read_predictions
from wsol.rows import Row
from wsol.scoremaps import find_scoremaps, read_scoremap
from wsol.tables import image_table, table, write_scores
from wsol.truth import MaskFiles, make_truth

THRESHOLDS = np.arange(0, 1, 0.01)


def birds(boxes, labels=None, size=(20, 16), classes=3):
    """Truth of images of one size, with one box each."""
    names = [f"{index}.jpg" for index in range(len(boxes))]
    labels = [index % classes for index in range(len(boxes))] if labels is None else labels
    sizes = [size] * len(boxes)
    return make_truth(
        "here", names, labels, sizes, [[b] for b in boxes], list("abcdefgh")[:classes]
    )


def planted(box, size=(20, 16)):
    heatmap = np.zeros(size[::-1])
    x0, y0, x1, y1 = box
    heatmap[y0:y1, x0:x1] = 1
    return heatmap


def test_scores_equal_the_published_evaluators(shared):
    folder = shared / "fixtures" / "boxes"
    expected = json.loads((folder / "cub_test_scores.json").read_text())
    archive = np.load(folder / "cub_test_scores.npz")
    everything = published_metadata(shared / "data" / "cub_metadata" / "test")
    rows = [everything.names.index(name) for name in archive["image_ids"]]
    truth = make_truth(
        "fixture",
        [everything.names[row] for row in rows],
        everything.labels[rows],
        everything.sizes[rows],
        everything.boxes[rows].tolist(),
        everything.classes,
    )
    maps = stack(
        read_off(pixels / 255.0, truths=boxes, size=size)
        for pixels, boxes, size in zip(archive["scoremaps"], truth.boxes, truth.sizes, strict=True)
    )
    thresholds = np.arange(0, 1, expected["cam_threshold_interval"])
    result = score(Measured(truth, None, {"maps": maps}), thresholds=thresholds).result
    reference = result["reference"]["maps"]
    assert 100 * reference["max_box_acc"]["0.5"] == expected["MaxBoxAcc"][0]
    assert 100 * reference["max_box_acc_v2"] == pytest.approx(np.mean(expected["MaxBoxAccV2"]))
    any_ious = maps.any_published_ious(thresholds)
    for iou_threshold, value in zip((0.3, 0.5, 0.7), expected["MaxBoxAccV2"], strict=True):
        assert 100 * (any_ious >= iou_threshold).mean(axis=0).max() == value
    rows = {row["policy"]: row for row in result["localization"]}
    assert set(rows) == {"oracle", "reference"}
    assert 100 * rows["reference"]["gt_known_loc"] == expected["MaxBoxAcc"][0]
    assert rows["oracle"]["top1_loc"] is None


def test_the_floor_on_cub(shared):
    """A centred square of side 0.63 of the 224 px frame gets GT-known 59.49 with inclusive corners;
    read off a map the published evaluator makes it a pixel wider, and half-open boxes in the
    files' own pixels are stricter."""
    truth = published_metadata(shared / "data" / "cub_metadata" / "test")
    box = (41, 41, 182, 182)
    inclusive = published_truth(truth.boxes[:, 0], truth.sizes, (224, 224))
    assert round(100 * (iou(box, inclusive) >= 0.5).mean(), 2) == 59.49
    maps = stack([read_off(planted(box, (224, 224)))] * len(truth))
    result = score(Measured(truth, None, {"square": maps}), thresholds=[0.0], fixed=0.0).result
    assert result["images"] == 5794
    rows = {row["policy"]: round(100 * row["gt_known_loc"], 2) for row in result["localization"]}
    assert rows == {"fixed:0": 58.91, "oracle": 58.91, "reference": 59.51}
    assert round(100 * result["curves"]["square"]["gt_known_loc"][0], 2) == 58.91


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_identities_hold_on_any_input(seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, (12, 10), (8, 2))
    truth = birds([(*c, *(c + rng.integers(1, 7, 2))) for c in corners], classes=7)
    kinds = [
        lambda: cv2.GaussianBlur(rng.random((10, 14)), (0, 0), 1.5).clip(0, 1),
        lambda: rng.random((3, 5)).round(1),
        lambda: np.full((4, 4), rng.choice([0, 0.003, 1])),
        lambda: (rng.random((9, 9)) < 0.2) * rng.random(),
    ]
    test_maps, val_maps = (
        stack(read_off(kinds[rng.integers(4)]()) for _ in range(8)) for _ in range(2)
    )
    classes = np.argsort(rng.random((8, 7)), axis=1)[:, :5]
    predictions = Predictions(classes, rng.random(8), 7)
    measured = Measured(truth, predictions, {"maps": test_maps})
    validation = Measured(truth, None, {"maps": val_maps})
    result = score(measured, validation, thresholds=THRESHOLDS, fixed=0.3).result
    assert {row["policy"] for row in result["localization"]} == {
        *("val", "fixed:0.3", "oracle", "reference")
    }
    own = [row for row in result["localization"] if row["policy"] != "reference"]
    for row in result["localization"]:
        assert row["top1_loc"] <= min(row["gt_known_loc"], result["top1_accuracy"])
        assert row["top1_loc"] <= row["top5_loc"] <= min(row["gt_known_loc"], 1)
        for key, (low, high) in row["intervals"].items():
            assert 0 <= low <= high <= 1
            if row["policy"] in ("val", "fixed:0.3"):
                assert low <= row[key] <= high
    oracle = next(row for row in result["localization"] if row["policy"] == "oracle")
    assert oracle["gt_known_loc"] == max(row["gt_known_loc"] for row in own)
    headline = result["headline"]["maps"]
    assert sum(headline["errors"].values()) == pytest.approx(1)
    assert headline["errors"]["right"] == result["localization"][0]["top1_loc"]


def test_top5_needs_the_map_of_the_true_class_alone():
    """Each of the first five classes with its own map, by brute force, gives the same Top-5."""
    rng = np.random.default_rng(0)
    boxes = [(2, 2, 10, 12)] * 30
    truth = birds(boxes, labels=rng.integers(0, 8, 30), classes=8)
    maps = rng.random((30, 8, 16, 20))
    maps[rng.random((30, 8)) < 0.4] = planted(boxes[0])
    order = np.argsort(rng.random((30, 8)), axis=1)[:, :5]
    expected = [
        any(k == label and _hit(maps[row, k], boxes[0]) for k in order[row])
        for row, label in enumerate(truth.labels)
    ]
    own = stack(read_off(maps[row, label]) for row, label in enumerate(truth.labels))
    measured = Measured(truth, Predictions(order, None, 8), {"maps": own})
    (row, *_) = score(measured, thresholds=[0.5], fixed=0.5).result["localization"]
    assert row["top5_loc"] == np.mean(expected)


def _hit(heatmap, box):
    maps = stack([read_off(heatmap)])
    return maps.ious(birds([box]), [0.5])[0, 0] >= 0.5


def test_scores_do_not_depend_on_the_frame_of_the_map():
    """A map at another size than the image's, and another aspect."""
    truth = birds([(0, 0, 10, 16), (10, 4, 20, 16)])
    small = stack(
        [read_off(planted((0, 0, 5, 4), (10, 4))), read_off(planted((5, 1, 10, 4), (10, 4)))]
    )
    np.testing.assert_array_equal(small.ious(truth, [0.0, 0.5, 1.0])[:, :2], 1)
    np.testing.assert_array_equal(small.ious(truth, [1.0]), 0)


def test_thresholds_that_change_nothing_are_left_out():
    maps = stack(
        [read_off(np.linspace(0, 1, 256).reshape(16, 16)), read_off(np.full((2, 2), 0.02))]
    )
    distinct = maps.distinct(np.arange(0, 1, 0.001))
    assert len(distinct) == 255
    truth = birds([(0, 0, 16, 9), (0, 0, 20, 16)])
    dense = maps.ious(truth, np.arange(0, 1, 0.001))
    np.testing.assert_array_equal(
        np.unique(dense, axis=1), np.unique(maps.ious(truth, distinct), axis=1)
    )


@pytest.mark.parametrize("policy", ["", "fixed", "val:1", "best", "oracle:val"])
def test_a_score_without_a_policy_cannot_be(policy):
    with pytest.raises(ValueError, match="policy"):
        Row("maps", policy, 0.5, 1.0, None, None, {}, {})


def test_a_box_that_is_listed_twice_is_one_object():
    box = [2, 2, 10, 12]
    truth = make_truth("here", ["a"], [0], [(20, 16)], [[box, box]], ["x"])
    assert truth.boxes.shape == (1, 1, 4)
    kinds = ErrorKinds()(np.array([[0, 0, 20, 16]]), truth.boxes, truth.counts)
    assert kinds == ["box too large"]


def test_damaged_maps_are_named(tmp_path):
    np.save(tmp_path / "good.npy", np.zeros((30, 30)))
    good = (tmp_path / "good.npy").read_bytes()
    huge = good.replace(b"(30, 30)", b"(10000000, 10000000)")
    rng = np.random.default_rng(0)
    damaged = [b"", b"PK\x03\x04garbage", good[:100], huge]
    for _ in range(300):
        bytes_ = bytearray(good)
        for place in rng.integers(0, 128, rng.integers(1, 4)):
            bytes_[place] = rng.integers(256)
        damaged.append(bytes(bytes_))
    for content in damaged:
        (tmp_path / "bad.npy").write_bytes(content)
        try:
            heatmap = read_scoremap(tmp_path / "bad.npy")
        except ValueError as error:
            assert "bad.npy" in str(error)
        else:
            assert heatmap.dtype.kind == "f"


def test_maps_are_found_and_none_is_used_twice(tmp_path):
    truth = birds([(2, 2, 10, 12)] * 2)
    (tmp_path / "elsewhere").mkdir()
    for name in ("0.jpg", "1"):
        np.save(tmp_path / "elsewhere" / f"{name}.npy", np.zeros((2, 2)))
    (tmp_path / "maps").symlink_to(tmp_path / "elsewhere")
    names = [file.name for file in find_scoremaps(tmp_path / "maps", truth)]
    assert names == ["0.jpg.npy", "1.npy"]
    shared_stem = replace(truth, names=("1.jpg", "1.png"))
    (tmp_path / "maps" / "0.jpg.npy").unlink()
    with pytest.raises(ValueError, match="two images share one map"):
        find_scoremaps(tmp_path / "maps", shared_stem)
    np.save(tmp_path / "maps" / "1.jpg.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"two maps of 1.jpg: 1.jpg.npy and 1.npy"):
        find_scoremaps(tmp_path / "maps", replace(truth, names=("1.jpg", "2.jpg")))


def test_results_replace_older_ones_together_or_not_at_all(tmp_path):
    truth = birds([(2, 2, 10, 12)] * 3)
    maps = {"a map": stack([read_off(planted((2, 2, 10, 12)))] * 3)}
    predictions = Predictions(np.zeros((3, 1), np.int64), np.ones(3), 3)
    test = Measured(truth, predictions, maps)
    write_scores(tmp_path, test, score(test, thresholds=[0.0]), {"settings": {"seed": 0}})
    before = {file: file.read_text() for file in tmp_path.rglob("*.*") if file.is_file()}
    assert {file.name for file in before} == {
        *("images.csv", "metrics.json", "truth.json", "a_map.json")
    }
    (tmp_path / "coco" / "truth.json").unlink()
    (tmp_path / "coco" / "truth.json").mkdir()
    other = replace(test, predictions=None)
    with pytest.raises(OSError, match=r"truth.json"):
        write_scores(tmp_path, other, score(other, thresholds=[0.0]), {})
    (tmp_path / "coco" / "truth.json").rmdir()
    del before[tmp_path / "coco" / "truth.json"]
    assert {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()} == before
    write_scores(tmp_path, other, score(other, thresholds=[0.0]), {})
    assert not (tmp_path / "coco" / "a_map.json").exists()


def test_perfect_and_constant_maps_against_masks():
    rng = np.random.default_rng(0)
    mask = (rng.random((30, 20)) < 0.3).astype(np.int8)
    edges = bin_edges(np.arange(0, 1, 0.001))
    perfect = pixel_scores(pixel_counts(mask.astype(float), mask, edges))
    assert perfect == {"pxap": 1.0, "piou": 1.0}
    for value in (0.0, 0.5, 1.0):
        constant = pixel_scores(pixel_counts(np.full(mask.shape, value), mask, edges))
        assert constant["pxap"] == pytest.approx(mask.mean())
        assert constant["piou"] == pytest.approx(mask.mean())
    # two object pixels at .9 and .1, two of background at .5 and .1: by hand
    heatmap, mask = np.array([[0.9, 0.1, 0.5, 0.1]]), np.array([[1, 1, 0, 0]], np.int8)
    by_hand = pixel_scores(pixel_counts(heatmap, mask, edges))
    assert by_hand["pxap"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert by_hand["piou"] == pytest.approx(0.5)
    ignored = np.array([[1, 1, -1, 0]], np.int8)
    assert pixel_counts(heatmap, ignored, edges).sum() == 3
    everything = pixel_scores(pixel_counts(heatmap, np.ones((1, 4), np.int8), edges))
    assert everything == {"pxap": 1, "piou": 1}
    assert np.isnan(pixel_scores(pixel_counts(heatmap, np.zeros((1, 4), np.int8), edges))["pxap"])


def test_masks_are_read_as_published(tmp_path):
    soft = np.array([[0, 51, 204, 255]] * 4, np.uint8)
    ignore = np.array([[255, 0, 255, 0]] * 4, np.uint8)
    for name, pixels in (("mask.png", soft), ("ignore.png", ignore)):
        cv2.imwrite(str(tmp_path / name), pixels)
    files = MaskFiles((tmp_path / "mask.png",), tmp_path / "ignore.png")
    assert read_mask(files, (2, 4), (400, 400)).tolist() == [[-1, 0, 1, 1]] * 2
    loose = replace(files, cut=0)
    assert read_mask(loose, (4, 8), (4, 4))[0].tolist() == [-1, -1, 1, 1, 1, 1, 1, 1]
    with pytest.raises(ValueError, match=r"no mask .*nowhere.png"):
        read_mask(MaskFiles((tmp_path / "nowhere.png",)), (2, 2), (4, 4))
    with pytest.raises(ValueError, match=r"mask .*mask.png has 4 x 4 pixels, its image 8 x 4"):
        read_mask(files, (2, 2), (8, 4))


def test_one_image_without_an_object_spoils_no_interval():
    """Most resamples of six images leave out the only one whose mask is not empty."""
    truth = birds([(2, 2, 10, 12)] * 6)
    masks = [np.zeros((16, 20), np.int8) for _ in range(6)]
    masks[3][2:12, 2:10] = 1
    edges = bin_edges(THRESHOLDS)
    maps = stack(
        read_off(planted((2, 2, 10, 12)), mask=mask, edges=edges, truths=None) for mask in masks
    )
    truth = replace(truth, masks=(MaskFiles((Path("a"),)),) * 6)
    result = score(Measured(truth, None, {"maps": maps}), thresholds=THRESHOLDS).result
    assert result["pixels"]["maps"]["pxap"] == pytest.approx(1 / 6)
    empty = stack(read_off(planted((2, 2, 4, 4)), mask=m * 0, edges=edges) for m in masks)
    with pytest.raises(ValueError, match="no pixel is above 127"):
        score(Measured(truth, None, {"maps": empty}), thresholds=THRESHOLDS)


def test_the_validation_images_choose_and_the_test_images_do_not():
    """On validation the faint ring is right, on test the bright core: each has its own best."""
    ring, core = (2, 2, 18, 14), (6, 5, 12, 11)
    heatmap = 0.4 * planted(ring) + 0.6 * planted(core)
    maps = stack([read_off(heatmap)] * 6)
    test = Measured(birds([core] * 6), None, {"maps": maps})
    validation = Measured(birds([ring] * 6), None, {"maps": maps})
    scores = score(test, validation, thresholds=THRESHOLDS)
    rows = {row["policy"]: row for row in scores.result["localization"]}
    assert rows["val"]["threshold"] < 0.4 <= rows["oracle"]["threshold"]
    assert [rows[p]["gt_known_loc"] for p in ("val", "oracle", "reference")] == [0, 1, 1]
    headline = scores.result["headline"]["maps"]
    assert headline["policy"] == "val"
    assert headline["errors"]["box too large"] == 1
    assert set(headline["class_gt_known_loc"].values()) == {0.0}
    assert scores.chosen[0].boxes.tolist() == [list(ring)] * 6
    curve = scores.result["curves"]["maps"]
    at = dict(zip(curve["threshold"], curve["gt_known_loc"], strict=True))
    assert (at[0.0], at[max(at)]) == (0, 1)
    without = replace(validation, truth=replace(validation.truth, boxes=np.zeros((6, 0, 4))))
    with pytest.raises(ValueError, match="validation images have no true boxes"):
        score(test, without, thresholds=THRESHOLDS)


def test_an_oracles_interval_chooses_again_in_every_resample():
    """Half the images want a low threshold, half a high one: the better half of a resample counts,
    so an oracle's interval lies above one half, and that of a fixed threshold around it."""
    ring, core = (2, 2, 18, 14), (6, 5, 12, 11)
    maps = stack([read_off(0.4 * planted(ring) + 0.6 * planted(core))] * 40)
    test = Measured(birds([ring, core] * 20), None, {"maps": maps})
    result = score(test, thresholds=THRESHOLDS, fixed=0.1).result
    intervals = {row["policy"]: row["intervals"]["gt_known_loc"] for row in result["localization"]}
    assert intervals["fixed:0.1"][0] < 0.4
    assert intervals["oracle"][0] >= 0.5
    assert intervals["reference"][0] >= 0.5
    assert result["reference"]["maps"]["intervals"]["max_box_acc"]["0.5"][0] >= 0.5


def test_class_means_weigh_classes_not_images():
    truth = birds([(2, 2, 10, 12)] * 3 + [(12, 2, 18, 12)], labels=[0, 0, 0, 1])
    maps = stack([read_off(planted((2, 2, 10, 12)))] * 4)
    result = score(Measured(truth, None, {"maps": maps}), thresholds=[0.0], fixed=0.0).result
    row = result["localization"][0]
    assert (row["gt_known_loc"], row["class_means"]["gt_known_loc"]) == (0.75, 0.5)
    shares = result["headline"]["maps"]["class_gt_known_loc"]
    assert shares == {"a": 1.0, "b": 0.0, "c": None}


def test_the_published_truth_is_clipped_to_the_last_pixel():
    """A box that reaches the image's border: the published evaluator ends it one pixel before."""
    truth = birds([(0, 0, 2, 16)], size=(2, 16))
    maps = stack([read_off(planted((0, 0, 1, 16), (2, 16)))])
    (published,) = maps.published_ious(truth, [0.0])
    assert published.tolist() == [1.0]  # corners 0 and 1, both inside, on both sides
    assert maps.ious(truth, [0.0]).tolist() == [[0.5]]


def test_kinds_of_error_by_hand():
    truths = np.array([[[10, 10, 30, 30], [10, 10, 30, 30]]] * 6, float)
    truths[4] = [[0, 0, 10, 10], [20, 0, 30, 10]]
    counts = np.array([1, 1, 1, 1, 2, 1])
    boxes = [
        [10, 10, 30, 30],  # right
        [12, 12, 20, 20],  # inside
        [0, 0, 60, 60],  # around
        [40, 40, 50, 50],  # beside
        [0, 0, 30, 10],  # around two
        [0, 0, 0, 0],  # none
    ]
    kinds = ErrorKinds()(np.array(boxes), truths, counts)
    assert kinds.tolist() == [
        *("right", "box on a part", "box too large", "elsewhere"),
        *("several instances", "elsewhere"),
    ]
    edges = {  # on both sides of each share
        (10, 10, 30, 19): "box on a part",
        (0, 10, 19, 19): "elsewhere",  # 47 % of it inside
        (0, 10, 21, 19): "box on a part",  # 52 %
        (0, 10, 21, 30): "elsewhere",  # 52 % of it inside, but no smaller than the bird
        (0, 0, 25, 40): "box too large",
        (0, 0, 23, 40): "elsewhere",
    }
    for box, kind in edges.items():
        assert ErrorKinds()(np.array([box]), truths[:1], counts[:1]) == [kind], box
    two, pair = truths[4:5], np.array([2])
    assert ErrorKinds()(np.array([[6, 0, 24, 20]]), two, pair) == ["several instances"]
    assert ErrorKinds()(np.array([[8, 0, 22, 20]]), two, pair) == ["elsewhere"]
    wrong = ErrorKinds()(np.array(boxes), truths, counts, np.zeros(6, bool))
    assert set(wrong) == {"wrong class"}
    assert set(kinds) | set(wrong) == set(KINDS)


def write_published(folder, truth):
    """The published evaluator's metadata files of a truth with one box each."""
    folder.mkdir(parents=True)
    rows = list(zip(truth.names, truth.labels, truth.sizes, truth.boxes[:, 0], strict=True))
    lines = {
        "image_ids.txt": [name for name, *_ in rows],
        "class_labels.txt": [f"{name},{label}" for name, label, *_ in rows],
        "image_sizes.txt": [f"{name},{w},{h}" for name, _, (w, h), _ in rows],
        "localization.txt": [f"{n},{','.join(f'{v:g}' for v in box)}" for n, _, _, box in rows],
    }
    for file, content in lines.items():
        (folder / file).write_text("\n".join(content))
    return folder


def test_metadata_in_three_formats_is_one_truth(toy, tmp_path):
    from_layout = read_truth(toy, "test")
    folder = write_published(tmp_path / "meta" / "test", from_layout)
    (tmp_path / "truth.json").write_text(json.dumps(coco_truth(from_layout)))
    for place in (folder, folder.parent, tmp_path / "truth.json"):
        truth = read_truth(place, "test")
        assert truth.names == from_layout.names
        for column in ("labels", "sizes", "boxes", "counts"):
            np.testing.assert_array_equal(getattr(truth, column), getattr(from_layout, column))
    assert truth.classes == from_layout.classes
    assert truth.identities.tolist() == from_layout.identities.tolist()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("localization.txt", lambda t: t.replace("0.jpg,2", "0.jpg,-3"), "box -3,.*0.jpg"),
        ("localization.txt", lambda t: t.replace("10,12", "99,12"), "box 2,2,99,12 of 0.jpg"),
        ("localization.txt", lambda t: t.replace("1.jpg", "x.jpg"), "no line for image 1.jpg"),
        ("localization.txt", lambda t: t.replace("2,2", "2,a"), "localization.txt, line 1"),
        ("class_labels.txt", lambda t: t[:-7], "class_labels.txt.*2.jpg"),
        ("class_labels.txt", lambda t: t + "\n0.jpg,1", "line 4: image 0.jpg stands there twice"),
        ("class_labels.txt", lambda t: t.replace(",1", ",-1"), "label -1 of 1.jpg"),
        ("class_labels.txt", lambda t: t.replace(",1", ",0.5"), "line 2: expected whole"),
        ("image_sizes.txt", lambda t: t.replace("20,16", "20", 1), "image_sizes.txt, line 1"),
        ("image_ids.txt", lambda t: t + "\n0.jpg", "0.jpg stands there twice"),
        ("class_labels.txt", lambda t: t.replace(",1", ",1e30"), "label 1.* of 1.jpg"),
        ("image_sizes.txt", lambda t: t.replace("20,16", "0,0", 1), "0.jpg has 0 x 0 pixels"),
        ("image_sizes.txt", lambda t: t.replace("20", "1e300", 1), "0.jpg has 1"),
        ("localization.txt", lambda t: t.replace("2,2,10,12", "m.png,", 1), "1.jpg has no mask"),
        ("image_ids.txt", lambda t: "", "the split is empty"),
    ],
)
def test_broken_metadata_is_named(tmp_path, file, change, message):
    folder = write_published(tmp_path / "meta", birds([(2, 2, 10, 12)] * 3))
    (folder / file).write_text(change((folder / file).read_text()))
    with pytest.raises(ValueError, match=message):
        published_metadata(folder)


def test_an_image_without_a_box_is_named():
    with pytest.raises(ValueError, match="here: image b has no box"):
        make_truth("here", ["a", "b"], [0, 0], [(9, 9)] * 2, [[(1, 1, 2, 2)], []], ["x"])


def test_metadata_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no file or folder"):
        read_truth(tmp_path / "nowhere", "test")
    with pytest.raises(ValueError, match="no image_ids.txt"):
        read_truth(tmp_path, "test")


def test_openimages_metadata_has_masks(tmp_path):
    folder = write_published(tmp_path / "meta", birds([(2, 2, 10, 12)] * 2))
    lines = ["0.jpg,a.png,i.png", "0.jpg,b.png,", "1.jpg,c.png,"]
    (folder / "localization.txt").write_text("\n".join(lines))
    truth = published_metadata(folder)
    assert truth.boxes.size == 0
    assert truth.masks == (
        MaskFiles((folder / "a.png", folder / "b.png"), folder / "i.png", cut=0),
        MaskFiles((folder / "c.png",), cut=0),
    )
    for name in "abci":
        cv2.imwrite(str(folder / f"{name}.png"), np.eye(16, 20, dtype=np.uint8) * 255)
    edges = bin_edges(THRESHOLDS)
    maps = stack(
        read_off(np.eye(16, 20), mask=read_mask(files, (16, 20), (20, 16)), edges=edges)
        for files in truth.masks
    )
    scores = score(Measured(truth, None, {"maps": maps}), thresholds=THRESHOLDS)
    assert scores.result["pixels"]["maps"]["pxap"] == 1
    assert scores.result["localization"] == []
    assert "| 100.0 [100.0, 100.0] (mask > 0) |" in table({"run": scores.result})


def test_predictions_files(tmp_path):
    truth = birds([(2, 2, 10, 12)] * 3)
    file = tmp_path / "predictions.txt"
    file.write_text("0.jpg,0:0.9,2\n1.jpg, 2:0.5, 1\n2.jpg,0:1,1\nother.jpg,1:1,2\n")
    read = read_predictions(file, truth, known=["other.jpg"])
    assert read.order.tolist() == [[0, 2], [2, 1], [0, 1]]
    assert read.confidence.tolist() == [0.9, 0.5, 1]
    assert read.correct(truth.labels, 1).tolist() == [True, False, False]
    assert read.correct(truth.labels, 5) is None
    file.write_text("0.jpg,0,1,2\n1.jpg,2\n2.jpg,0,1\n")
    assert read_predictions(file, truth).order.tolist() == [[0], [2], [0]]
    file.write_text("0.jpg,7\n1.jpg,2\n2.jpg,0\n")
    assert read_predictions(file, replace(truth, open_classes=True)).classes == 8
    for text, message in {
        "0.jpg,0\n": "no line for image 1.jpg",
        "0.jpg,0\n1.jpg,1\n2.jpg,1\nx.jpg,1": "line 4: this image is not",
        "0.jpg,0\n0.jpg,0": "line 2: this image stands there twice",
        "0.jpg,0,0": "line 1: expected an image and different classes",
        "0.jpg,-1": "line 1: expected",
        "0.jpg": "line 1: invalid literal|line 1: expected",
        "0.jpg,0:7": "line 1: a probability",
        "0.jpg,3": "line 1: class 3 is not in 0 to 2",
        "0.jpg,zero": "line 1: invalid literal",
    }.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_predictions(file, truth)


def test_average_precision_equals_cocoevals_over_all_pairs():
    """Ours visits only the pairs of image and category that hold something."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    truth = birds([(2, 2, 10, 12)] * 40, labels=rng.integers(0, 5, 40), classes=6)
    order = np.where(rng.random(40) < 0.6, truth.labels, rng.integers(0, 6, 40))[:, None]
    boxes = np.array([2, 2, 10, 12]) + rng.integers(-2, 3, (40, 4))
    results = coco_results(truth, Predictions(order, rng.random(40), 6), boxes)
    expected = COCO()
    expected.dataset = coco_truth(truth)
    expected.createIndex()
    run = COCOeval(expected, expected.loadRes([dict(r) for r in results]), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert average_precision(truth, results) == pytest.approx(run.stats[1])
    assert 0.1 < run.stats[1] < 0.9
    assert average_precision(truth, []) == 0


def test_given_boxes_are_scored_like_maps(tmp_path):
    """One box each, some of a wrong class, one image without any."""
    truth = birds([(2, 2, 10, 12)] * 4, labels=[0, 1, 2, 0])
    box = {"bbox": [2, 2, 8, 10], "score": 0.5}
    results = [
        {"image_id": 1, "category_id": 1, **box},
        {"image_id": "1.jpg", "category_id": 1, **box},
        {"image_id": 3, "category_id": 3, **box},
        {"image_id": 3, "category_id": 1, "bbox": [11, 11, 2, 2], "score": 0.9},
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    given_boxes = read_coco_results(file, truth)
    assert given_boxes.found.tolist() == [True, True, True, False]
    scores = score_given(truth, given_boxes)
    (row,) = scores.result["localization"]
    assert (row["policy"], row["threshold"]) == ("given", None)
    assert [row[key] for key in ("gt_known_loc", "top1_loc", "top5_loc")] == [0.75, 0.25, None]
    assert scores.result["images_without_box"] == 1
    assert scores.chosen[0].kinds.tolist() == ["right", *["wrong class"] * 3]
    lines = image_table(Measured(truth, given_boxes.predictions, {}), scores.chosen).splitlines()
    assert lines[1] == "0.jpg,0,0,2.00,2.00,10.00,12.00,1.0,boxes,given,,right"
    assert lines[4] == "3.jpg,0,,0.00,0.00,0.00,0.00,0.0,boxes,given,,wrong class"
    for change, message in (
        ({"image_id": 9}, "result 1: unknown image_id 9"),
        ({"category_id": 9}, "result 1: unknown category_id 9"),
        ({"bbox": [0, 0, -1, 1]}, "result 1: box .* negative"),
        ({"bbox": [0, 0, 1]}, "result 1: box .* four numbers"),
        ({"bbox": "0123"}, "result 1: box .* four numbers"),
        ({"score": float("nan")}, "result 1: nan is no finite number"),
        ({"score": 10**400}, "result 1: 1000.* is no finite number"),
        ({"score": None}, "result 1: None is no finite"),
        ({"image_id": 1.5}, "result 1: 1.5 is no whole"),
        ({"image_id": True}, "result 1: True is no finite"),
        ({"image_id": [1]}, "result 1"),
    ):
        file.write_text(json.dumps([results[0] | change]))
        with pytest.raises(ValueError, match=message):
            read_coco_results(file, truth)
    for text in ("{}", "3", "[", '["a"]'):
        file.write_text(text)
        with pytest.raises(ValueError, match="results.json"):
            read_coco_results(file, truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"].pop(), "image 3 has no annotation"),
        (lambda d: d["annotations"][0].update(image_id=7), "image 7, which is none"),
        (lambda d: d["annotations"].append(d["annotations"][0] | {"category_id": 2}), "two categ"),
        (lambda d: d["images"].append(d["images"][0]), "two image entries have id 1"),
        (lambda d: d["categories"].append(d["categories"][0]), "two category entries have id 1"),
        (lambda d: d["images"][0].update(file_name=None), "a file_name is no text"),
        (lambda d: d["images"][0].update(width=20.7), "20.7 is no whole number"),
        (lambda d: d["images"][0].update(width=10**30), "is no finite number"),
        (lambda d: d["annotations"][0].update(category_id=9), "category 9, which is none"),
        (lambda d: d.update(images=[3]), "no COCO ground truth"),
        (lambda d: d["annotations"][0].update(iscrowd=1), "crowd"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, 100, 5]), "box 0,0,100,5 of 0.jpg"),
        (lambda d: d.pop("images"), "no COCO ground truth"),
    ],
)
def test_broken_coco_truth_is_named(tmp_path, change, message):
    dataset = coco_truth(birds([(2, 2, 10, 12)] * 3))
    change(dataset)
    (tmp_path / "truth.json").write_text(json.dumps(dataset))
    with pytest.raises(ValueError, match=message):
        read_truth(tmp_path / "truth.json", "test")
