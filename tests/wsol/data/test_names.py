"""Names as keys, in the spellings of several programs and systems."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.birds import birds, write_published
from tests.helpers.folders import HEADER, write_image, write_small
from wsol.annotations.ground_truth import with_masks
from wsol.annotations.metadata import read_published_metadata
from wsol.annotations.predictions import read_predictions
from wsol.data.cub import CUB200
from wsol.data.image_folder import ImageFolder
from wsol.data.names import KnownNames, path_below, same_names, titles
from wsol.evaluation.scoremaps import any_scoremap, find_scoremaps

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Grün/é.jpg") for form in ("NFC", "NFD"))


def test_titles_are_for_people_and_stay_different():
    assert titles(["001.Black_footed_Albatross", "Red_Finch", "7", "_"]) == [
        *("Black footed Albatross", "Red Finch", "7", "_")
    ]
    assert titles(["1.a", "2.a"]) == ["1.a", "2.a"]
    assert titles(["4.", "a_b"]) == ["4.", "a b"]


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b c.jpg", "~", "C:", "\\", "\0", "ü"])))
def test_no_name_leads_out_of_its_folder(parts):
    """Python's own reading of the path is the oracle."""
    name = "/".join(parts)
    try:
        place = path_below("/data/images", name)
    except ValueError:
        plain = parts and all(part in ("a", "b c.jpg", "~", "ü") for part in parts)
        assert not plain, "an honest name was refused"
    else:
        resolved = place.resolve()
        assert resolved.is_relative_to("/data/images")
        assert resolved.as_posix() != "/data/images"


@pytest.mark.parametrize(
    ("known", "name", "meant"),
    [
        (["/d/a.jpg", "/d/b.jpg"], "/d/a.jpg", "/d/a.jpg"),
        (["D:\\d\\a.jpg"], "D:\\d\\a.jpg", "D:\\d\\a.jpg"),
        (["D:\\d\\a.jpg"], "D:/d/a.jpg", "D:\\d\\a.jpg"),
        (["images\\a.jpg"], "/d/images/a.jpg", "images\\a.jpg"),
        (["./a.jpg"], "a.jpg", "./a.jpg"),
        (["a//x/./b.jpg"], "a/x/b.jpg", "a//x/./b.jpg"),
        ([DECOMPOSED], COMPOSED, DECOMPOSED),
        ([COMPOSED], f"photos/{DECOMPOSED}", COMPOSED),
        ([COMPOSED, DECOMPOSED], DECOMPOSED, DECOMPOSED),
        (["a.jpg", "./a.jpg"], "./a.jpg", "./a.jpg"),
        (["a.jpg", "x/a.jpg"], "d/x/a.jpg", "x/a.jpg"),
        (["/d/x/a.jpg"], "x/a.jpg", "/d/x/a.jpg"),
        (["a.jpg"], "ba.jpg", None),
        (["x/a.jpg"], "y/a.jpg", None),
        (["a.jpg"], "A.jpg", None),
        (["a.jpg"], "", None),
    ],
)
def test_a_name_means_an_image_in_every_spelling(known, name, meant):
    assert KnownNames(known).find(name) == meant


@pytest.mark.parametrize(
    ("known", "name"),
    [
        (["x/a.jpg", "y/a.jpg"], "a.jpg"),
        (["./a.jpg", ".//a.jpg"], "a.jpg"),
        ([COMPOSED, f"./{DECOMPOSED}"], DECOMPOSED),
    ],
)
def test_a_name_that_may_mean_two_images_is_refused(known, name):
    with pytest.raises(ValueError, match="may mean '.*' or '"):
        KnownNames(known).find(name)


def test_an_equal_name_comes_before_an_end():
    """a.jpg and sub/a.jpg are two images, although the second path ends with the first."""
    names = KnownNames(["a.jpg"], given=["a.jpg", "sub/a.jpg"])
    assert [names.find(name) for name in ("a.jpg", "sub/a.jpg", "./a.jpg")] == [
        "a.jpg",
        None,
        "a.jpg",
    ]


def test_classes_are_compared_by_their_letters():
    classes = ["a", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "ü"), "a"]
    assert same_names(unicodedata.normalize("NFD", "é"), classes) == [1]
    assert same_names("ü", classes) == [2]
    assert same_names("a", classes) == [0, 3]
    assert same_names("b", classes) == []


def test_files_of_one_split_may_spell_names_differently(tmp_path):
    names = ("x/0.jpg", COMPOSED, "2.jpg")
    truth = birds([(2, 2, 10, 12), (3, 3, 9, 9), (1, 1, 5, 5)])
    folder = write_published(tmp_path / "meta", truth)
    spelled = (("image_ids", names), ("class_labels", ("x\\0.jpg", DECOMPOSED, "./2.jpg")))
    for file, spellings in spelled:
        text = (folder / f"{file}.txt").read_text()
        for number, name in enumerate(spellings):
            text = text.replace(f"{number}.jpg", name)
        (folder / f"{file}.txt").write_text(text)
    for file in ("image_sizes", "localization"):
        text = (folder / f"{file}.txt").read_text().replace("0.jpg", "d/x/0.jpg")
        (folder / f"{file}.txt").write_text(text.replace("1.jpg", DECOMPOSED))
    read = read_published_metadata(folder)
    assert read.names == names
    assert read.boxes.tolist() == truth.boxes.tolist()
    assert read.labels.tolist() == truth.labels.tolist()
    predictions = tmp_path / "predictions.txt"
    predictions.write_text(f"x\\0.jpg,2\n{DECOMPOSED},1\n./2.jpg,0\n")
    assert read_predictions(predictions, read).order.tolist() == [[2], [1], [0]]
    predictions.write_text("x/0.jpg,2\nx\\0.jpg,1\n")
    with pytest.raises(ValueError, match="line 2: this image is listed twice"):
        read_predictions(predictions, read)
    for place in ("x", "Grün"):
        (tmp_path / "maps" / place).mkdir(parents=True)
    for name in ("x/0.jpg", COMPOSED, "2"):
        np.save(tmp_path / "maps" / f"{name}.npy", np.zeros((2, 2)))
        write_image((tmp_path / "maps" / name).with_suffix(".png"))
    spelled_otherwise = birds([(2, 2, 10, 12)] * 3)
    object.__setattr__(spelled_otherwise, "names", ("x\\0.jpg", DECOMPOSED, "./2.jpg"))
    maps = find_scoremaps(tmp_path / "maps", spelled_otherwise)
    assert [file.name for file in maps] == ["0.jpg.npy", f"{COMPOSED[5:]}.npy", "2.npy"]
    assert any_scoremap(tmp_path / "maps", spelled_otherwise)
    masks = with_masks(spelled_otherwise, tmp_path / "maps").masks
    assert [mask.objects[0].name for mask in masks] == ["0.png", f"{COMPOSED[5]}.png", "2.png"]


def test_a_data_set_of_another_system_is_read(tmp_path):
    """A list made under Windows, and file names as macOS writes them."""
    root = tmp_path / "CUB_200_2011"
    write_image(root / "images" / "1.a" / "x.jpg")
    write_image(root / "images" / DECOMPOSED)
    for file, lines in {
        "images": ("1 1.a\\x.jpg", f"2 {COMPOSED}"),
        "classes": ("1 a", "2 b"),
        "image_class_labels": ("1 1", "2 2"),
        "train_test_split": ("1 0", "2 0"),
        "bounding_boxes": ("1 0 0 2 2", "2 0 0 2 2"),
    }.items():
        (root / f"{file}.txt").write_text("\n".join(lines))
    data = CUB200(root, "test")
    assert [each.name for each in data.examples] == ["1.a/x.jpg", DECOMPOSED]
    assert data[1]["label"] == 1
    (root / "classes.txt").write_text("1 é\n2 e\u0301")
    with pytest.raises(ValueError, match="2 classes of .* are called é"):
        CUB200(root, "test")


def test_class_folders_of_two_systems_are_one_class(tmp_path):
    root = write_small(tmp_path / "data")
    for split, name in (("train", "e\u0301"), ("test", "\u00e9")):
        write_image(root / split / name / "1.png")
    (root / "boxes.csv").write_text(f"{HEADER}\n./test/e\u0301/1.png,0,0,1,1\n1.png,0,0,1,1\n")
    with pytest.raises(ValueError, match=r"boxes.csv, line 3: '1.png' may mean"):
        ImageFolder(root, "test")
    (root / "boxes.csv").write_text(f"{HEADER}\n./test/e\u0301/1.png,0,0,1,1\n")
    test = ImageFolder(root, "test")
    assert [(each.label, len(each.boxes)) for each in test.examples][-1] == (2, 1)
