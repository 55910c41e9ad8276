"""Other programs' heatmaps, and what is kept of them."""

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.birds import birds, planted
from wsol.evaluation.box_table import box_row, stack_rows
from wsol.evaluation.scoremaps import find_scoremaps, read_scoremap


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


def test_thresholds_that_change_nothing_are_left_out():
    maps = stack_rows(
        [box_row(np.linspace(0, 1, 256).reshape(16, 16)), box_row(np.full((2, 2), 0.02))]
    )
    distinct = maps.distinct(np.arange(0, 1, 0.001))
    assert len(distinct) == 255
    truth = birds([(0, 0, 16, 9), (0, 0, 20, 16)])
    dense = maps.ious(truth, np.arange(0, 1, 0.001))
    np.testing.assert_array_equal(
        np.unique(dense, axis=1), np.unique(maps.ious(truth, distinct), axis=1)
    )


def test_scores_do_not_depend_on_the_frame_of_the_map():
    """A map at another size than the image's, and another aspect."""
    truth = birds([(0, 0, 10, 16), (10, 4, 20, 16)])
    small = stack_rows(
        [box_row(planted((0, 0, 5, 4), (10, 4))), box_row(planted((5, 1, 10, 4), (10, 4)))]
    )
    np.testing.assert_array_equal(small.ious(truth, [0.0, 0.5, 1.0])[:, :2], 1)
    np.testing.assert_array_equal(small.ious(truth, [1.0]), 0)


def test_the_published_truth_is_clipped_to_the_last_pixel():
    """A box that reaches the image's border: the published evaluator ends it one pixel before."""
    truth = birds([(0, 0, 2, 16)], size=(2, 16))
    maps = stack_rows([box_row(planted((0, 0, 1, 16), (2, 16)))])
    (published,) = maps.published_ious(truth, [0.0])
    assert published.tolist() == [1.0]  # corners 0 and 1, both inside, on both sides
    assert maps.ious(truth, [0.0]).tolist() == [[0.5]]
