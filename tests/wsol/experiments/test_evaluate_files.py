"""Other programs' maps, scored by files of the published evaluator."""

import cv2
import numpy as np
import pytest

from wsol.experiments.evaluate_files import evaluate_scoremaps

IMAGES = ("test/0a/one.jpg", "test/0b/two.jpg")


def _columns(file, shape, *columns):
    """A mask of `shape` (H,W) that is 255 in some of four columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((shape[0], 4), np.uint8)
    mask[:, columns] = 255
    cv2.imwrite(str(file), cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST))


@pytest.fixture
def open_images(tmp_path):
    """OpenImages as published: two images, masks in a folder of their own, no image sizes."""
    metadata = tmp_path / "metadata" / "OpenImages"
    one, two = (name.removesuffix(".jpg") for name in IMAGES)
    for name, lines in {
        "image_ids": IMAGES,
        "class_labels": (f"{IMAGES[0]},0", f"{IMAGES[1]},1"),
        "image_sizes": (),
        "localization": (
            f"{IMAGES[0]},{one}_m0a_1.png,{one}_ignore.png",
            f"{IMAGES[0]},{one}_m0a_2.png,",
            f"{IMAGES[1]},{two}_m0b_1.png,{two}_ignore.png",
        ),
    }.items():
        for split in ("val", "test"):
            (metadata / split).mkdir(parents=True, exist_ok=True)
            text = "\n".join(lines).replace("test/", f"{split}/")
            (metadata / split / f"{name}.txt").write_text(text)
    data = tmp_path / "dataset" / "OpenImages"
    _columns(data / f"{one}_m0a_1.png", (4, 8), 0)
    _columns(data / f"{one}_m0a_2.png", (4, 8), 1)
    _columns(data / f"{one}_ignore.png", (6, 4), 1, 2)  # of another shape, and over an object
    _columns(data / f"{two}_m0b_1.png", (2, 4), 1)
    _columns(data / f"{two}_ignore.png", (2, 4))
    for name, row in zip(IMAGES, ([0.9, 0.1, 0.5, 0.1], [0.9, 0.8, 0.2, 0.1]), strict=True):
        file = tmp_path / "maps" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.array([row, row]))
    return metadata, data, tmp_path / "maps"


def test_openimages_is_scored_from_its_files_as_they_are(open_images, tmp_path):
    metadata, data, maps = open_images
    scores = evaluate_scoremaps(maps, metadata, masks=data, workers=0, output=tmp_path / "out")
    pixels = scores.metrics["pixels"]["maps"]
    # From the highest value: .9 is one object pixel of two, .8 two of three, .2 two of four and .1
    # three of seven. The pixel at .5 is ignored. Each of the three object pixels is a third of the
    # recall.
    assert pixels["pxap"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 7) / 3)
    assert pixels["piou"] == pytest.approx(2 / 4)
    assert pixels["mask_cut"] == 0
    assert scores.metrics["localization"] == []
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_openimages_files_that_are_not_there_are_named(open_images):
    metadata, data, maps = open_images
    with pytest.raises(ValueError, match=r"no mask .*one_m0a_1.png: --masks names the folder"):
        evaluate_scoremaps(maps, metadata, workers=0)
    (data / "test/0a/one_ignore.png").unlink()
    with pytest.raises(ValueError, match=r"no mask .*dataset/OpenImages/test/0a/one_ignore.png"):
        evaluate_scoremaps(maps, metadata, masks=data, workers=0)
    file = metadata / "test" / "localization.txt"
    file.write_text(file.read_text().replace("_2.png,", "_2.png,test/0a/other.png"))
    with pytest.raises(ValueError, match=r"localization.txt, line 2: .* two ignore masks"):
        evaluate_scoremaps(maps, metadata, masks=data, workers=0)
    file.write_text("\n".join(f"{name},0,0,2,2" for name in IMAGES))
    with pytest.raises(ValueError, match=r"image_sizes.txt: no line for image test/0a/one.jpg"):
        evaluate_scoremaps(maps, metadata, masks=data, workers=0)
