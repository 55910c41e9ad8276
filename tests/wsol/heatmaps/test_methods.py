import numpy as np
import pytest

from wsol.evaluation.baselines import above_baselines
from wsol.evaluation.score_table import ScoreRow
from wsol.evaluation.scores import Headline
from wsol.heatmaps.averaged import Averaged
from wsol.heatmaps.heatmap import CAM, CentredBox, Gradient
from wsol.heatmaps.methods import BASES, baseline_of, find_method, with_baselines
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


def test_a_refined_map_stands_beside_the_same_refinement_of_a_centred_box():
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
    floor = np.arange(100) < 60
    gradient = floor | (np.arange(100) >= 90)  # ten more, none lost
    cam = np.roll(floor, 50)  # as many, others
    rows = [chosen("gradient", gradient), chosen("cam", cam), chosen("centred box", floor)]
    found = above_baselines(rows)["floors"]
    assert set(found) == {"gradient", "cam"}
    assert found["gradient"]["difference"] == pytest.approx(0.1)
    assert found["gradient"]["floor_gt_known_loc"] == pytest.approx(0.6)
    # a resample gains Binomial(100, 0.1) images: standard error 3 points
    low, high = found["gradient"]["interval"]
    assert 0.03 <= low <= 0.06
    assert 0.14 <= high <= 0.18
    # 80 images changed sides, 40 each way: standard error 8.9 points
    low, high = found["cam"]["interval"]
    assert low == pytest.approx(-0.175, abs=0.03)
    assert high == pytest.approx(0.175, abs=0.03)
    assert above_baselines(rows[-1:]) == {}
