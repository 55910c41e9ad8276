"""A result: its text, its picture, and what Jupyter shows of it."""

import io

import numpy as np
import pytest
from PIL import Image

from wsol.localizer.localization import Localization

GRAY = np.full((64, 64, 3), 90, np.uint8)
RED = [255, 64, 64]


def found(heatmap=None, source=GRAY, box=(10, 20, 40, 50), name="ant"):
    return Localization(box, 0, name, 0.9, heatmap, source.shape[1::-1], source=source)


@pytest.mark.parametrize("heatmap", [np.zeros((4, 4), np.float32), None])
def test_a_picture_marks_the_box(heatmap):
    picture = np.asarray(found(heatmap).draw())
    assert picture.shape == (320, 320, 3)  # enlarged five times
    assert picture[100, 125].tolist() == picture[249, 125].tolist() == RED
    assert (picture[175, 125] == 90).all()
    assert (np.asarray(found(heatmap).draw(heatmap=False))[175, 125] == 90).all()


def test_a_picture_says_all_of_a_long_name():
    """The last letter fits in, also on a thumbnail."""
    plain = np.full((96, 96, 3), 90, np.uint8)
    picture = np.asarray(found(None, plain, (0,) * 4, "014.Indigo_Bunting_with_a_long_name").draw())
    assert (picture[:, -1] == 90).all()
    assert (picture[:, 240:282] == 255).any()


def test_pixels_of_floats_are_drawn_like_those_of_whole_numbers():
    np.testing.assert_array_equal(
        np.asarray(found(source=GRAY.astype(np.float32) / 255).draw()), np.asarray(found().draw())
    )


def test_a_result_is_one_short_line():
    place = found(np.zeros((999, 999), np.float32))
    assert repr(place) == (
        "<Localization: ant 0.90, box (10.0, 20.0, 40.0, 50.0) in 64 x 64 pixels>"
    )
    more = Localization((0, 0, 0, 0), None, "object", 0, None, (3, 2), source="http://x/a.jpg")
    assert repr(more) == ("<Localization: object 0.00, no box in 3 x 2 pixels, http://x/a.jpg>")
    assert more.path is None


def test_a_result_is_saved_and_shown(tmp_path):
    place = found(source=np.zeros((600, 1200, 3), np.uint8))
    place.save(tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(place.draw()))
    with Image.open(io.BytesIO(place._repr_png_())) as shown:
        assert shown.size == (480, 240)
    with pytest.raises(ValueError, match="unknown file extension: .xyz"):
        place.save(tmp_path / "a.xyz")
    bare = Localization(place.box, 0, "ant", 0.9, None, place.size)
    assert bare._repr_png_() is None
    with pytest.raises(ValueError, match="holds no image to draw on"):
        bare.draw()
