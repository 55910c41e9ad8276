"""A plain folder of classes as a data set, boxes for evaluation alone."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.folders import HEADER, write_boxes, write_image, write_plain, write_small
from wsol import Localizer
from wsol.annotations.metadata import read_ground_truth
from wsol.boxes.geometry import rescale
from wsol.data.cub import CUB200
from wsol.data.image_files import image_size, read_image
from wsol.data.image_folder import ImageFolder
from wsol.data.inputs import find_images
from wsol.data.loaders import DataConfig, find_layout
from wsol.data.transforms import eval_transform
from wsol.evaluation.run_model import run_model
from wsol.evaluation.split_selection import prepare_split
from wsol.heatmaps.heatmap import Gradient


@pytest.fixture(scope="module")
def plain(toy, tmp_path_factory):
    return write_plain(toy, tmp_path_factory.mktemp("folder") / "my_data")


@pytest.fixture
def small(tmp_path):
    return write_small(tmp_path / "my_data")


def names(root, split="train", **options):
    return [example.name for example in ImageFolder(root, split, **options).examples]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_same_images_in_both_layouts_are_the_same_items(toy, plain, split):
    transform = eval_transform(32)
    cub, folder = (
        kind(root, split, val_fraction=0.2, transform=transform)
        for kind, root in ((CUB200, toy), (ImageFolder, plain))
    )
    assert cub.classes == folder.classes
    part = "test" if split == "test" else "train"
    place = {f"{part}/{example.name}": index for index, example in enumerate(cub.examples)}
    assert sorted(place) == sorted(example.name for example in folder.examples)
    order = [place[example.name] for example in folder.examples]
    for index, second in zip(order, folder, strict=True):
        first = cub[index]
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in ("image", "box", "size"))
        assert first["label"] == second["label"]
    truths = [read_ground_truth(root, split, val_fraction=0.2) for root in (toy, plain)]
    for column in ("labels", "sizes", "boxes", "counts"):
        first, second = (getattr(truth, column) for truth in truths)
        np.testing.assert_array_equal(first[order], second)


def test_the_layout_is_found(toy, plain, tmp_path):
    assert find_layout(toy) is find_layout(toy.parent) is CUB200
    assert find_layout(plain) is ImageFolder
    with pytest.raises(ValueError, match="no images.txt .* and no folder train or test with"):
        find_layout(tmp_path)


def test_images_of_ones_own_for_validation(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "own")
    root = tmp_path / "own"
    kept = names(root)
    kept.remove("train/002.Red_Longtail/Red_Longtail_0007.jpg")
    moved = root / "train" / "002.Red_Longtail" / "Red_Longtail_0007.jpg"
    (root / "val" / "002.Red_Longtail").mkdir(parents=True)
    moved.rename(root / "val" / "002.Red_Longtail" / "a.jpg")
    write_boxes(root, [("val/002.Red_Longtail/a.jpg", 1, 2, 3, 4)])
    for fraction in (0, 0.2):
        (example,) = ImageFolder(root, "val", val_fraction=fraction).examples
        assert (example.label, example.boxes) == (1, ((1, 2, 3, 4),))
        assert names(root, val_fraction=fraction) == kept


def test_what_is_an_image_and_what_is_not(small):
    for name in ("train/a/deeper/2.JPG", "train/a/1.jpg"):
        write_image(small / name)
    for name in ("a/._1.png", "a/.cache/1.png", ".hidden/1.png", "a/notes.txt", "Thumbs.db"):
        (small / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (small / "train" / name).write_text("no image")
    found = ["train/a/1.jpg", "train/a/1.png", "train/a/2.png", "train/a/deeper/2.JPG"]
    assert names(small)[:4] == found
    write_boxes(small, [("train/a/1.jpg", 0, 0, 1, 1), ("train/a/1.png", 0, 0, 2, 2)])
    data = ImageFolder(small, "train")
    boxes = [example.boxes for example in data.examples[:3]]
    assert boxes == [((0, 0, 1, 1),), ((0, 0, 2, 2),), ()]
    assert len({example.identity for example in data.examples}) == len(data)
    (small / "train" / "b" / "1.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot read image .*train/b/1.png"):
        list(ImageFolder(small, "train"))


def test_links_that_a_user_made_are_followed(small, tmp_path):
    (small / "train" / "a").rename(tmp_path / "elsewhere")
    (small / "train" / "a").symlink_to(tmp_path / "elsewhere")
    assert names(small)[:2] == ["train/a/1.png", "train/a/2.png"]


def _empty_class(root):
    (root / "train" / "empty").mkdir()


def _unknown_class(root):
    write_image(root / "test" / "c" / "1.png")


def _loose_image(root):
    write_image(root / "train" / "1.png")


def _one_class(root):
    shutil.rmtree(root / "train" / "b")


def _no_test(root):
    shutil.rmtree(root / "test")


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        (_empty_class, "train", "there are no images in .*train/empty; every class needs some"),
        (_unknown_class, "train", "test/c is a class without images in .*train"),
        (_loose_image, "test", "train/1.png lies in no class"),
        (_one_class, "train", "train holds 1 folder.s. of images; a classifier needs at least two"),
        (_no_test, "test", "the test split of .*my_data is empty"),
        (lambda root: None, "val", "the val split .* is empty; give a val_fraction above 0.1"),
    ],
)
def test_what_a_folder_lacks_is_said(small, change, split, message):
    change(small)
    with pytest.raises(ValueError, match=message):
        ImageFolder(small, split, val_fraction=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"boxes.csv, line 1: expected a header image,x0,y0,x1,y1"),
        ("test/a/1.png,0,0,1,1", r"boxes.csv, line 1: expected a header"),
        ("image;x0;y0;x1;y1", r"boxes.csv, line 1: expected a header"),
        (f"{HEADER},x0\ntest/a/1.png,0,0,1,1,0", r"boxes.csv, line 1: expected a header"),
        (f"{HEADER}\n\ntest/a/9.png,0,0,1,1", r"boxes.csv, line 3: there is no such image"),
        (f"{HEADER}\n../../x.png,0,0,1,1", r"boxes.csv, line 2: there is no such image"),
        (f"{HEADER}\n/etc/passwd,0,0,1,1", r"boxes.csv, line 2: there is no such image"),
        (f"{HEADER}\ntest/a/1.png,0,0,1", r"boxes.csv, line 2: expected 5 values"),
        (f"{HEADER}\ntest/a/1.png,0,0,one,1", r"boxes.csv, line 2: could not convert"),
        (f"{HEADER}\ntest/a/1.png,0,0,nan,1", r"boxes.csv, line 2: nan is not a finite number"),
        (f"{HEADER}\ntest/a/1.png,,0,1,1", r"boxes.csv, line 2: "),
        (f"{HEADER}\ntest/a/1.png,3,0,1,1", r"boxes.csv, line 2: expected 0 <= x0 < x1"),
        (f"{HEADER}\ntest/a/1.png,-1,0,1,1", r"boxes.csv, line 2: expected 0 <= x0 < x1"),
        (
            f"{HEADER}\ntest/a/1.png,0,0,1,1\ntest/a/1.png,0,0,8,1",
            r"line 3: the box ends at 8, 1, outside test/a/1.png, which has 6 x 4 pixels",
        ),
    ],
)
def test_a_malformed_line_of_boxes_is_named(small, text, message):
    (small / "boxes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        ImageFolder(small, "test")


def test_boxes_as_other_programs_write_them(small):
    """Columns in any order, more of them, folders before the path, lines without a box."""
    text = (
        'label,y0,x0,x1,y1,image\n"one, two",1,0,6,4,test/a/1.png\n'
        "x, 0, 0, 2, 2,/home/me/my_data/test/a/1.png\n"
        "x,0,0,2,2,test\\a\\1.png\nx,,,,,test/b/1.png\n"
    )
    (small / "boxes.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    first, second = ImageFolder(small, "test").examples
    assert (first.boxes, second.boxes) == (((0, 1, 6, 4), (0, 0, 2, 2)), ())


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_size_of_a_turned_image_is_known_without_reading_it(tmp_path, suffix, orientation):
    file = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (8, 4)).save(file, exif=exif)
    for upright in (False, True):
        assert image_size(file, upright=upright) == read_image(file, upright=upright).shape[1::-1]


def test_boxes_are_in_the_image_as_viewers_show_it(small, network):
    """A camera's sideways file: the same item as the upright picture, trained on, scored and
    localized."""
    generator = np.random.default_rng(0)
    upright = generator.integers(0, 255, (32, 64, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for name in ("test/a/1.png", "test/b/1.png"):
        Image.fromarray(upright).save(small / name)
    Image.fromarray(np.rot90(upright)).save(small / "test/b/1.png", exif=exif)
    write_image(small / "train" / "c" / "1.png")
    write_boxes(small, [(f"test/{name}/1.png", 10, 4, 64, 28) for name in "ab"])
    data = ImageFolder(small, "test", transform=eval_transform(32))
    first, second = data
    for key in ("image", "box", "size"):
        assert torch.equal(first[key], second[key])
    assert first["size"].tolist() == [64, 32]
    assert first["box"].tolist() == [5, 4, 32, 28]
    np.testing.assert_array_equal(data.pixels(1), upright)
    loader = torch.utils.data.DataLoader(data, 2)
    measured = run_model(network, prepare_split(loader), {"gradient": Gradient()})
    assert read_ground_truth(small, "test").sizes.tolist() == measured.truth.sizes.tolist()
    maps = measured.tables["gradient"]
    scored = rescale(maps.boxes([0.3])[:, 0], maps.frame, measured.truth.sizes)
    files = [example.path for example in data.examples]
    found = Localizer(network, "gradient", 0.3).predict(files, label=[0, 1])
    for box, place in zip(scored.tolist(), found, strict=True):
        assert place.box == pytest.approx(box)


def test_settings_come_with_the_layout(small):
    for number in range(8):
        write_image(small / "train" / "a" / f"more{number}.png")
    config = DataConfig(str(small), image_size=32, batch_size=4, num_workers=0)
    assert len(config.dataset("val")) == 1
    assert config.dataset("test").boxed() is None
    assert [len(batch["label"]) for batch in config.training_loader()] == [4, 4]
    write_boxes(small, [("test/b/1.png", 0, 0, 6, 4)])
    (batch,) = config.in_order(config.dataset("test").boxed())
    assert (batch["label"].tolist(), batch["box"].tolist()) == ([1], [[0, 0, 32, 32]])


def test_photos_of_other_kinds_are_counted(tmp_path):
    write_small(tmp_path)
    for name in ("train/a/x.HEIC", "train/b/y.heic", "test/a/z.cr2", "train/a/.hidden.heic"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"left out: 1 .cr2, 2 .heic; convert them to JPEG"):
        ImageFolder(tmp_path, "train")
    for file in (tmp_path / "train" / "a").glob("*.png"):
        file.unlink()
    with pytest.raises(ValueError, match=r"no images in .*train/a; .* left out: 1 .heic; convert"):
        ImageFolder(tmp_path, "train")


def test_every_suffix_of_jpeg_is_an_image(tmp_path):
    names = [f"{number}.{suffix}" for number, suffix in enumerate(("jpg", "JFIF", "jpe", "jif"))]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / name, "JPEG")
    assert [file.name for file in find_images(tmp_path)] == names
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.avif").touch()
    with pytest.raises(ValueError, match=r"no images in .*; .* left out: 1 .avif"):
        find_images(tmp_path / "sub")
