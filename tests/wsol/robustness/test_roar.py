import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from tests.helpers.commands import ROOT, tool
from wsol.data.cub import CUB200
from wsol.data.image_files import read_image
from wsol.data.transforms import eval_transform
from wsol.robustness.roar import IMPORTANCES, area, channel_means, replace_pixels, write_replaced


@settings(max_examples=30, deadline=None)
@given(fraction=st.floats(0.01, 0.99), levels=st.integers(1, 40), seed=st.integers(0, 99))
def test_the_most_important_pixels_are_replaced_or_kept(fraction, levels, seed):
    torch.manual_seed(seed)
    image = 0.1 + 0.8 * torch.rand(2, 3, 9, 8)
    importance = torch.randint(levels, (2, 9, 8)).float()
    filler = torch.tensor([0.0, 1.0, 0.0])
    count = round(fraction * 72)
    for mode in ("roar", "kar"):
        changed = replace_pixels(image, importance, fraction, mode, filler)
        gone = (changed == filler[:, None, None]).all(dim=1)
        assert torch.equal(
            changed[~gone[:, None].expand_as(image)], image[~gone[:, None].expand_as(image)]
        )
        important = gone if mode == "roar" else ~gone
        assert (important.sum(dim=(1, 2)) == count).all()
        for each, values in zip(important, importance, strict=True):
            if 0 < count < 72:
                assert values[each].min() >= values[~each].max()


def test_areas_by_hand():
    fractions = [0.1, 0.3, 0.5, 0.7, 0.9]
    assert area(fractions, [0.4] * 5, [0.6] * 5, "roar") == pytest.approx(0.2 * 0.9)
    assert area(fractions, [0.6] * 5, [0.4] * 5, "kar") == pytest.approx(0.2 * 0.9)
    assert area([0.5], [0.3], [0.5], "roar") == pytest.approx(0.1)
    with pytest.raises(ValueError, match="different fractions"):
        area([0.5, 0.5], [0.3, 0.3], [0.5, 0.5], "roar")
    # keeping a tenth is replacing nine tenths
    kept = area([0.1, 0.5], [0.5, 0.4], [0.2, 0.4], "kar")
    assert kept == pytest.approx(np.trapezoid([0, 0, 0.3, 0], [0, 0.5, 0.9, 1]))


def test_importances_equal_the_papers_formulas():
    """Magnitudes of the predicted class's cross-entropy, from mid-grey, summed over channels."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 3))
    net.num_classes = 3
    model, image = Classifier(net).double(), torch.rand(4, 3, 5, 5, dtype=torch.float64)
    predicted = model(image).argmax(dim=1)

    def slope(at):
        """(softmax - one) W, by hand."""
        error = model(at).softmax(dim=1) - F.one_hot(predicted, 3)
        return (error @ net[1].weight).view_as(at).detach()

    offset = image - 0.5
    mean = sum(slope(0.5 + k / 20 * offset) for k in range(1, 21)) / 20
    for name, expected in (
        ("gradient", slope(image)),
        ("gradient_x_input", offset * slope(image)),
        ("integrated_gradients", offset * mean),
    ):
        found = IMPORTANCES[name](model, image)
        torch.testing.assert_close(found, expected.abs().sum(dim=1))


def test_the_replaced_pixels_are_the_important_ones(toy, tmp_path):
    splits = [CUB200(toy, split, transform=eval_transform(32)) for split in ("train", "test")]
    folder = tmp_path / "dark" / "CUB_200_2011"

    def brightness(model, image):
        return image.sum(dim=1)

    model = create_model("test_resnet", 4, image_size=32).eval()
    write_replaced(folder, model, splits, importance=brightness, fraction=0.2, mode="roar")
    filler = (channel_means(splits[0]).numpy() * 255).round()
    for new, old in zip(CUB200(folder, "test").examples, splits[1], strict=True):
        gone = (read_image(new.path) == filler).all(axis=2)
        values = old["image"].sum(dim=0).numpy()
        assert values[gone].min() >= values[~gone].max() - 1e-6


def test_the_replaced_data_set_has_cubs_layout(toy, tmp_path):
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    splits = [CUB200(toy, split, transform=eval_transform(32)) for split in ("train", "test")]
    mean = channel_means(splits[0])
    whole = torch.stack([item["image"] for item in splits[0]]).mean(dim=(0, 2, 3))
    torch.testing.assert_close(mean, whole)
    for name, importance in IMPORTANCES.items():
        folder = tmp_path / name / "CUB_200_2011"
        settings = {"importance": importance, "fraction": 0.3, "mode": "roar"}
        write_replaced(folder, model, splits, **settings)
        again = [CUB200(folder, split) for split in ("train", "test")]
        assert [len(split) for split in again] == [len(split) for split in splits]
        assert again[0].classes == splits[0].classes
        for new, old in zip(again, splits, strict=True):
            assert [e.label for e in new.examples] == [e.label for e in old.examples]
            pixels = np.asarray(read_image(new.examples[0].path)).astype(int)
            before = (old[0]["image"].permute(1, 2, 0).numpy() * 255).round()
            filler = (mean.numpy() * 255).round()
            gone = (pixels == filler).all(axis=2)
            assert 0.29 < gone.mean() < 0.33
            assert (pixels[~gone] == before[~gone]).all()
        bytes_ = again[0].examples[0].path.read_bytes()
        write_replaced(folder, model, splits, **settings)
        assert again[0].examples[0].path.read_bytes() == bytes_


@pytest.mark.slow
def test_the_tool_trains_once_and_scores_roar_and_kar(run, tmp_path):
    arguments = (
        *("interpret.py", run, "--config", ROOT / "configs" / "toy_standard.yaml"),
        *("--output", tmp_path / "out", "--fractions", 0.5, "--seeds", 0, "--jobs", 2, "--"),
        *("--model.name", "test_resnet", "--data.image_size", 32, "--epochs", 1),
    )
    status, text, error = tool(*arguments)
    assert status == 0, error
    assert text.count("| ROAR |") == text.count("| KAR |") == 2
    for picture in ("interpretability.png", "trade_off.png"):
        assert cv2.imread(str(tmp_path / "out" / picture)).std() > 5
    before = [f.stat().st_mtime_ns for f in sorted((tmp_path / "out").rglob("last.ckpt"))]
    assert len(before) == 6
    status, again, error = tool(*arguments)
    assert (status, again) == (0, text), error
    after = [f.stat().st_mtime_ns for f in sorted((tmp_path / "out").rglob("last.ckpt"))]
    assert before == after
    status, _, error = tool(*arguments, "--seed", 3)
    assert status == 2
    assert "holds runs with another options" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attributions", "magic"), "must be among gradient"),
        (("--modes", "soar"), "roar, kar"),
        (("--fractions", 1.5), "between 0 and 1"),
        (("--seeds", 0, 0), "names a value twice"),
        (("--config", "c.yaml"), "there is no configuration c.yaml"),
        (("--", "--model.weights", "w.pth"), "trained from scratch"),
        ((), "is not a run"),
    ],
)
def test_mistakes_give_one_line(tmp_path, arguments, message):
    config = ROOT / "configs" / "toy_standard.yaml"
    own = ("--config", config, "--output", tmp_path / "out")
    status, _, error = tool("interpret.py", tmp_path, *own, *arguments)
    assert (status, message in error) == (2, True), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        replace_pixels(
            torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4), fraction, "roar", torch.zeros(3)
        )
