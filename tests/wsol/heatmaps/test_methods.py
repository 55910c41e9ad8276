from dataclasses import dataclass

import numpy as np
import pytest

from wsol.evaluation.results import Headline
from wsol.evaluation.score_rows import ScoreRow
from wsol.experiments.evaluate_model import above_baselines
from wsol.heatmaps.averaged import Averaged
from wsol.heatmaps.heatmap import CAM, CentredBox, Gradient, HeatmapMethod, min_max
from wsol.heatmaps.methods import BASES, baseline_of, denotes, find_method, with_baselines
from wsol.heatmaps.refined import Refined


def test_names_compose():
    assert find_method("gradient") == Gradient()
    assert find_method("flipped_cam") == Averaged(CAM(), scales=(1.0,))
    assert find_method("refined averaged gradient") == Refined(Averaged(Gradient()))
    for base, method in BASES.items():
        assert find_method(base.replace(" ", "_")) == method
    for name in ("gradeint", "refined", "averaged ", "gradient refined", ""):
        with pytest.raises(ValueError, match="no heatmap method .*cam.*refined"):
            find_method(name)


@dataclass(frozen=True)
class Brightness(HeatmapMethod):
    """A method of somebody's own."""

    power: float = 1.0

    def __call__(self, model, image, label):
        maps = image.mean(dim=1).double().numpy() ** self.power
        return np.stack([min_max(each) for each in maps])


class WithoutDefault(Brightness):
    def __init__(self, power):
        super().__init__(power)


@pytest.mark.parametrize("switch", ["", "refined ", "refined flipped "])
def test_a_method_is_named_by_its_class_path(switch):
    name = f"{switch}{__name__}.Brightness"
    method = find_method(name)
    while isinstance(method, Averaged | Refined):
        method = method.method
    assert method == Brightness()
    assert denotes(name, name)
    assert not denotes(name, find_method(name))  # a name in a file imports nothing
    baseline = "refined centred box" if switch else "centred box"
    assert list(with_baselines([name])) == [name, baseline]


def test_only_heatmap_methods_are_named_by_class_path():
    for path, message in (
        ("os.system", "os.system is not a subclass of .*HeatmapMethod"),
        ("subprocess.Popen", "not a subclass"),
        ("wsol.heatmaps.methods.find_method", "not a subclass"),
        ("wsol.heatmaps.heatmap.HeatmapMethod", "cannot be made without arguments: .*abstract"),
        ("wsol.heatmaps.refined.Refined", "cannot be made without arguments: .*method"),
        (f"{__name__}.WithoutDefault", "cannot be made without arguments"),
        (f"{__name__}.Nothing", "cannot import"),
        ("no_such_module.Mine", "cannot import the heatmap method .*PYTHONPATH"),
        ("refind os.path", "no heatmap method"),
    ):
        with pytest.raises(ValueError, match=message):
            find_method(path)


def test_a_name_in_a_file_means_a_method():
    names = ("gradient", "cam", "flipped cam", "refined averaged gradient", "smoothgrad")
    for name in names:
        assert denotes(name, find_method(name))
        assert denotes(name, name.replace(" ", "_"))
        assert not any(denotes(name, find_method(other)) for other in names if other != name)
    assert not denotes("gradient", Gradient(sigma=1))
    assert not denotes("somebody's maps", Gradient())


def test_the_baseline_of_a_refined_map_is_the_same_refinement_of_a_centred_box():
    assert baseline_of("averaged gradient") == baseline_of("centred_box") == "centred box"
    assert baseline_of("refined_averaged_gradient") == "refined centred box"
    assert baseline_of("averaged refined flipped cam") == "averaged refined centred box"
    assert with_baselines(["refined_cam", "gradient"]) == {
        "refined cam": Refined(CAM()),
        "gradient": Gradient(),
        "refined centred box": Refined(CentredBox()),
        "centred box": CentredBox(),
    }


def chosen(name, hits):
    row = ScoreRow(name, "val", 0.5, float(np.mean(hits)), None, None, {}, {})
    return Headline(row, np.zeros((len(hits), 4)), np.where(hits, 0.6, 0.4), np.array([]), None)


def test_what_a_map_brings_is_counted_image_by_image():
    baseline = np.arange(100) < 60
    gradient = baseline | (np.arange(100) >= 90)  # ten more, none lost
    cam = np.roll(baseline, 50)  # as many, others
    rows = [chosen("gradient", gradient), chosen("cam", cam), chosen("centred box", baseline)]
    found = above_baselines(rows)
    assert set(found) == {"gradient", "cam"}
    assert found["gradient"]["difference"] == pytest.approx(0.1)
    assert found["gradient"]["baseline_gt_known_loc"] == pytest.approx(0.6)
    # a resample gains Binomial(100, 0.1) images: standard error 3 points
    low, high = found["gradient"]["interval"]
    assert 0.03 <= low <= 0.06
    assert 0.14 <= high <= 0.18
    # 80 images changed sides, 40 each way: standard error 8.9 points
    low, high = found["cam"]["interval"]
    assert low == pytest.approx(-0.175, abs=0.03)
    assert high == pytest.approx(0.175, abs=0.03)
    assert above_baselines(rows[-1:]) == {}
