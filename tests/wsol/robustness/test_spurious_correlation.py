"""Spurious correlations on the toy birds, compared with values computed by hand."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from tests.helpers.commands import tool
from wsol.annotations.ground_truth import dataset_ground_truth
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.data.toy_birds.birds import SPECIES, draw
from wsol.data.toy_birds.null_patch import add_null_patch, null_patch
from wsol.data.toy_birds.writing import write_toy_birds
from wsol.report.score_tables import spurious_table, table
from wsol.robustness.spurious_correlation import (
    group_accuracy,
    mass_fraction,
    mass_in_region,
    read_spurious_cues,
    spurious_correlation,
)


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """18 toy birds of 32 px with null patches: 3 species, 2 test images each."""
    root = tmp_path_factory.mktemp("patched")
    return write_toy_birds(root, images=18, size=32, species=3, null_patch=True)


@pytest.fixture
def copy(patched, tmp_path):
    """A copy of the data set, for changes."""
    return shutil.copytree(patched, tmp_path / "CUB_200_2011")


class Linear(nn.Module):
    """The input gradient of class k's logit is weight[k] for every image."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nchw,kchw->nk", image, self.weight)


def measurements(root, model, correct=(True,) * 6):
    side = model.weight.shape[-1]
    loader = DataConfig(str(root), image_size=side, batch_size=4, num_workers=0).loader("test")
    cues = read_spurious_cues(loader.dataset, dataset_ground_truth(loader.dataset).sizes)
    return None if cues is None else spurious_correlation(model, loader, cues, correct)


def test_every_group_has_the_same_weight():
    groups = {
        ("a", "sky"): (8, 8),
        ("a", "sand"): (5, 1),
        ("b", "sky"): (10, 2),
        ("b", "x"): (4, 0),
    }
    classes = [name for (name, _), (count, _) in groups.items() for _ in range(count)]
    kinds = [kind for (_, kind), (count, _) in groups.items() for _ in range(count)]
    correct = [i < hits for count, hits in groups.values() for i in range(count)]
    found = group_accuracy(correct, classes, kinds)
    assert found["mean_accuracy"] == pytest.approx((1 + 0.2 + 0.2) / 3)
    worst = {"class": "b", "background": "sky", "images": 10, "accuracy": 0.2}
    assert found["worst"] == worst  # the larger of two equally bad ones
    assert len(found["groups"]) == 3
    assert found["left_out"] == 1
    none = group_accuracy(correct[-4:], classes[-4:], kinds[-4:])
    assert (none["mean_accuracy"], none["worst"], none["left_out"]) == (None, None, 1)


def test_mass_is_summed_over_channels_without_its_sign():
    attribution = torch.zeros(3, 3, 2, 2)
    attribution[0, :, 0, 0] = torch.tensor([1.0, -1.0, 1.0])
    attribution[0, 2, 1, 1] = -9
    attribution[2, 0, 0, 1] = torch.inf
    region = np.array([[[True, False], [False, False]]] * 3)
    np.testing.assert_array_equal(mass_fraction(attribution, region), [0.25, np.nan, np.nan])


def test_leakage_is_the_mass_divided_by_the_area():
    found = mass_in_region(np.array([0.5, np.nan, 0.1]), np.array([0.1, 0.9, 0.2]))
    assert found["mass"] == pytest.approx(0.3)
    assert found["area"] == pytest.approx(0.15)
    assert found["leakage"] == pytest.approx(2)
    assert found["left_out"] == 1
    assert found["intervals"]["mass"] == pytest.approx([0.1, 0.5])
    assert found["intervals"]["leakage"] == pytest.approx([0.5, 5])
    hidden = mass_in_region(np.zeros(2), np.zeros(2))
    assert (hidden["mass"], hidden["leakage"]) == (0, None)
    nothing = mass_in_region(np.full(2, np.nan), np.ones(2))
    assert (nothing["mass"], nothing["leakage"], nothing["left_out"]) == (None, None, 2)


@pytest.mark.parametrize("side", [32, 16])
def test_a_linear_model_has_the_mass_worked_out_by_hand(copy, side):
    """Birds in the left half, patches from a quarter to three quarters of the width."""
    half = np.zeros((32, 32), np.uint8)
    half[:, :16] = 255
    for file in (copy / "segmentations").rglob("*.png"):
        cv2.imwrite(str(file), half)
    lines = "".join(f"{image} 8 0 16 32\n" for image in range(1, 19))
    (copy / "null_patches.txt").write_text(lines)
    weight = torch.ones(3, 3, side, side)
    weight[1] = torch.where(torch.arange(side) < side // 2, -3.0, 1.0)
    weight[2] = 0
    found = measurements(copy, Linear(weight))
    assert found["object"]["mass"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert found["object"]["area"] == 1 / 2
    assert found["object"]["intervals"]["mass"] == pytest.approx([0.5, 0.75])
    assert found["object"]["left_out"] == 2
    assert found["null_patch"]["area"] == 1 / 4
    assert found["null_patch"]["mass"] == pytest.approx((1 / 4 + 1 / 8) / 2)
    assert found["null_patch"]["leakage"] == pytest.approx(3 / 4)
    (cells,) = spurious_table({"": {"spurious_correlation": found}}).rows
    assert cells[3] == "62.5 [50.0, 75.0] (2 images without a gradient)"
    assert cells[4] == "50.0"
    assert cells[5].startswith("0.75 [")


def test_a_constant_maps_mass_equals_the_area(patched):
    found = measurements(patched, Linear(torch.ones(3, 3, 32, 32)))
    data = CUB200(patched, "test")
    area = np.mean([data.mask(index).mean() for index in range(len(data))])
    assert found["object"]["mass"] == pytest.approx(found["object"]["area"])
    assert found["object"]["area"] == pytest.approx(area)
    assert found["null_patch"]["leakage"] == pytest.approx(1)
    assert 0 < found["null_patch"]["area"] < 6**2 / 32**2


def test_measurements_without_a_file_are_left_out(copy):
    model = Linear(torch.ones(3, 3, 16, 16))
    (copy / "null_patches.txt").unlink()
    assert set(measurements(copy, model)) == {"groups", "object"}
    CUB200(copy, "test").examples[0].mask.unlink()
    found = measurements(copy, model)
    assert set(found) == {"groups"}
    (cells,) = spurious_table({"": {"spurious_correlation": found}}).rows
    assert cells[3:] == ["-", "-", "-"]
    (copy / "backgrounds.txt").unlink()
    assert measurements(copy, model) is None


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("backgrounds.txt", "3", r"backgrounds.txt, line 3: expected an id and 1"),
        ("backgrounds.txt", "", r"backgrounds.txt: no line for image 1 "),
        ("null_patches.txt", "1 2 3 4", r"null_patches.txt, line 3: expected an id and 4"),
        ("null_patches.txt", "1 2 3 x 5", r"null_patches.txt, line 3: could not convert"),
        ("null_patches.txt", "", r"null_patches.txt: no line for image 1 "),
        ("null_patches.txt", "1 28 0 6 6", r"null_patches.txt: the box of .* extends outside of"),
        ("null_patches.txt", "1 0 28 6 6", r"null_patches.txt: the box of .* extends outside of"),
        ("null_patches.txt", "1 -1 0 6 6", r"null_patches.txt: the box of .* of 32 x 32 pixels"),
    ],
)
def test_a_malformed_line_is_named(copy, file, line, message):
    first, *lines = (copy / file).read_text().splitlines()
    assert first.startswith("1 ")
    lines.insert(2, line)
    (copy / file).write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        measurements(copy, Linear(torch.ones(3, 3, 16, 16)))


def test_the_patch_is_the_same_everywhere_and_behind_the_bird():
    boxes, visible = set(), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image, mask = draw(SPECIES[seed % 10], "sky", 40, rng)
        before = image.copy()
        x, y, width, height = box = add_null_patch(image, mask, rng)
        expected = before.copy()
        expected[y : y + height, x : x + width] = null_patch(8)
        expected[mask > 0] = before[mask > 0]
        np.testing.assert_array_equal(image, expected)
        assert (width, height) == (8, 8)
        assert min(x, y) >= 0
        assert max(x, y) + 8 <= 40
        boxes.add(box)
        visible += (mask[y : y + height, x : x + width] == 0).all()
    assert len(boxes) > 30
    assert 0 < visible < 40


def test_the_patchs_place_does_not_depend_on_the_species():
    for seed in range(3):
        places = set()
        for bird in SPECIES:
            rng = np.random.default_rng(seed)
            places.add(add_null_patch(*draw(bird, "sky", 32, rng), rng))
        assert len(places) == 1


def test_the_recorded_box_surrounds_the_difference_of_the_files(tmp_path):
    settings = {"images": 6, "size": 64, "species": 2}
    patched = write_toy_birds(tmp_path / "patched", null_patch=True, **settings)
    plain = write_toy_birds(tmp_path / "plain", **settings)
    texts = [*plain.rglob("*.txt"), *plain.rglob("*.png")]
    assert len(texts) == 6 + 6
    for file in texts:
        assert (patched / file.relative_to(plain)).read_bytes() == file.read_bytes()
    boxes = np.loadtxt(patched / "null_patches.txt")
    assert boxes[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    data, without = CUB200(patched, "train"), CUB200(plain, "train")
    for index, example in enumerate(data.examples):
        x, y, width, height = boxes[example.identity - 1, 1:].astype(int)
        tile, visible = np.zeros((64, 64, 3)), np.zeros((64, 64), np.uint8)
        tile[y : y + height, x : x + width] = null_patch(13)
        visible[y : y + height, x : x + width] = ~data.mask(index)[y : y + height, x : x + width]
        after, before = (255 * d[index]["image"].permute(1, 2, 0).numpy() for d in (data, without))
        inside, outside = visible > 0, cv2.dilate(visible, np.ones((35, 35))) == 0
        errors = [abs(pixels - tile)[inside].mean() for pixels in (before, after)]
        assert errors[0] > 3 * errors[1]  # JPEG changes pixels near the patch
        np.testing.assert_array_equal(after[outside], before[outside])  # beyond JPEG's 16 px blocks


def test_a_tie_does_not_change_the_test_images(tmp_path):
    settings = {"images": 60, "size": 32, "species": 2, "test_fraction": 0.5}
    tied = write_toy_birds(tmp_path / "tied", background_tie=1.0, **settings)
    free = write_toy_birds(tmp_path / "free", **settings)
    kinds = dict(line.split() for line in (tied / "backgrounds.txt").open())
    data = {split: CUB200(tied, split) for split in ("train", "test")}
    pairs = {
        split: {(e.label, kinds[str(e.identity)]) for e in examples.examples}
        for split, examples in data.items()
    }
    assert pairs["train"] == {(0, "foliage"), (1, "sky")}
    assert len(pairs["test"]) == 10
    for example in data["test"].examples:
        other = free / example.path.relative_to(tied)
        assert example.path.read_bytes() == other.read_bytes()


def test_evaluate_shows_spurious_correlations(tmp_path):
    root = write_toy_birds(tmp_path, images=48, size=32, species=4, null_patch=True)
    save_model(create_model("test_resnet", 4, image_size=32), tmp_path / "net")
    status, text, error = tool("evaluate.py", tmp_path / "net", "--root", root, "--all")
    assert status == 0, error
    metrics = json.loads((tmp_path / "net" / "metrics.json").read_text())
    assert set(metrics["spurious_correlation"]) == {"groups", "object", "null_patch"}
    heads, (cells,), _ = spurious_table({"net": metrics})
    assert "| " + " | ".join(heads) + " |" in text
    assert "| " + " | ".join(cells) + " |" in text.splitlines()
    del metrics["spurious_correlation"]
    assert "worst group" not in table({"net": metrics})
