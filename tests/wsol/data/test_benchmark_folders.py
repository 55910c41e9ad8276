"""ILSVRC, OpenImages30k and Pascal VOC's XML, on small folders of the same form."""

import pytest

from tests.helpers.commands import tool
from tests.helpers.folders import write_image
from wsol.data.benchmark_folders import ILSVRC, PublishedLayout, VOCFolder
from wsol.data.dataset import EmptySplitError
from wsol.data.loaders import DataConfig, find_layout
from wsol.evaluation.split_selection import select_splits

KIND = "wsol.data.benchmark_folders.VOCFolder"
SYNSETS = ("n01440764", "n01443537")


def write_lines(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))  # the published files have no line break at their end


def xml(file, *objects, size=(40, 24)):
    """Objects are a name and xmin, ymin, xmax, ymax."""
    entries = "".join(
        f"<object><name>{name}</name><part><name>head</name></part><bndbox><xmax>{x1}</xmax>"
        f"<xmin> {x0} </xmin><ymin>{y0}</ymin><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    )
    width, height = size
    frame = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    write_lines(file, f"<annotation><filename>x</filename>{frame}{entries}</annotation>")


@pytest.fixture
def published(tmp_path):
    """ILSVRC with the published evaluator's metadata; val2 lies in folders of numbers."""
    root = tmp_path / "ILSVRC"
    names = {
        "train": [f"train/{kind}/{kind}_{i}.JPEG" for kind in SYNSETS for i in range(2)],
        "val": ["val2/0/0.jpeg", "val2/1/1.jpeg"],
        "test": ["val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG"],
    }
    for split, images in names.items():
        for name in images:
            write_image(root / name, (40, 24))
        folder = root / "metadata" / split
        labels = [i * 2 // len(images) for i in range(len(images))]
        write_lines(folder / "image_ids.txt", *images)
        rows = [f"{name},{label}" for name, label in zip(images, labels, strict=True)]
        write_lines(folder / "class_labels.txt", *rows)
        write_lines(folder / "image_sizes.txt", *(f"{name},40,24" for name in images))
        if split != "train":  # it has none upstream
            boxes = [f"{images[0]},2,3,20,21", *(f"{name},5,5,39,23" for name in images)]
            write_lines(folder / "localization.txt", *boxes)
    return root


@pytest.fixture
def distributed(tmp_path):
    """ILSVRC in the folders in which it is distributed."""
    root = tmp_path / "ILSVRC"
    images, boxes = root / "Data" / "CLS-LOC", root / "Annotations" / "CLS-LOC"
    for kind in SYNSETS:
        for i in range(3):
            write_image(images / "train" / kind / f"{kind}_{i}.JPEG", (40, 24))
    xml(boxes / "train" / SYNSETS[1] / f"{SYNSETS[1]}_0.xml", (SYNSETS[1], 4, 4, 30, 20))
    for i, kind in enumerate(SYNSETS, start=1):
        write_image(images / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", (40, 24))
        objects = [(kind, 1, 2, 30, 20), (kind, 5, 5, 40, 24)]
        xml(boxes / "val" / f"ILSVRC2012_val_{i:08d}.xml", *objects)
    return root


def contents(dataset):
    return [(each.name, dataset.classes[each.label], each.boxes) for each in dataset.examples]


def test_ilsvrc_with_published_metadata(published):
    assert find_layout(published) is PublishedLayout
    train, val, test = (PublishedLayout(published, split) for split in ("train", "val", "test"))
    assert [each[1] for each in contents(train)] == [SYNSETS[0]] * 2 + [SYNSETS[1]] * 2
    assert contents(val)[1] == ("val2/1/1.jpeg", SYNSETS[1], ((5, 5, 39, 23),))
    first, second = contents(test)
    assert first[0] == "val/ILSVRC2012_val_00000001.JPEG"
    assert first[2] == ((2, 3, 20, 21), (5, 5, 39, 23))
    assert second[1:] == (SYNSETS[1], ((5, 5, 39, 23),))
    identities = [each.identity for part in (train, val, test) for each in part.examples]
    assert len(set(identities)) == 8
    assert DataConfig(str(published), 32, num_workers=0).dataset("test")[0]["image"].shape[1:] == (
        32,
        32,
    )


def test_openimages_has_labels_and_images_but_no_boxes(tmp_path):
    """Its masks are lines of three values, and its file of sizes is empty."""
    for split in ("train", "val", "test"):
        names = [f"{split}/0bt9lr/a.jpg", f"{split}/0c9ph5/b.jpg"]
        for name in names:
            write_image(tmp_path / name)
        folder = tmp_path / "metadata" / split
        write_lines(folder / "image_ids.txt", *names)
        write_lines(folder / "class_labels.txt", *(f"{n},{i}" for i, n in enumerate(names)))
        write_lines(folder / "image_sizes.txt")
        masks = [f"{names[0]},{names[0][:-4]}_m1.png,{names[0][:-4]}_ignore.png"]
        masks += [f"{names[0]},{names[0][:-4]}_m2.png,", f"{names[1]},{names[1][:-4]}_m1.png,"]
        write_lines(folder / "localization.txt", *masks)
    dataset = DataConfig(str(tmp_path)).dataset("val")
    assert contents(dataset) == [
        ("val/0bt9lr/a.jpg", "0bt9lr", ()),
        ("val/0c9ph5/b.jpg", "0c9ph5", ()),
    ]
    (note,) = select_splits(DataConfig(str(tmp_path), num_workers=0), None).notes
    assert note.endswith("boxes of its examples from PublishedLayout")
    status, output, error = tool("prepare_data.py", "verify", tmp_path)
    assert (status, error) == (0, ""), error
    each = "2 images of 2 classes, 0 boxes"
    assert output == f"{tmp_path} (PublishedLayout): train {each}; val {each}; test {each}\n"


def test_ilsvrc_as_it_is_distributed(distributed):
    assert find_layout(distributed) is ILSVRC
    test = ILSVRC(distributed, "test")
    assert contents(test) == [
        (f"val/ILSVRC2012_val_0000000{i}.JPEG", kind, ((1, 2, 30, 20), (5, 5, 40, 24)))
        for i, kind in enumerate(SYNSETS, start=1)
    ]
    train = contents(ILSVRC(distributed, "train"))
    assert len(train) == 6
    assert [name for name, _, boxes in train if boxes] == [
        f"train/{SYNSETS[1]}/{SYNSETS[1]}_0.JPEG"
    ]
    assert len(ILSVRC(distributed, "val", val_fraction=0.34)) == 2
    with pytest.raises(EmptySplitError, match="val split of .* is empty; give a val_fraction"):
        ILSVRC(distributed, "val")


def test_boxes_of_ilsvrc_are_scored(distributed):
    data = DataConfig(str(distributed), 32, val_fraction=0.34, num_workers=0)
    splits = select_splits(data, None)
    assert splits.boxed
    assert splits.test.truth.boxes.tolist() == [[[1, 2, 30, 20], [5, 5, 40, 24]]] * 2
    assert splits.test.truth.classes == SYNSETS


@pytest.fixture
def voc(tmp_path):
    for name in ("train/heron/1", "elsewhere/1", "test/gull/in/2", "test/3", "test/.hidden/4"):
        write_image(tmp_path / f"{name}.png", (40, 24))
    (tmp_path / "train" / "gull").symlink_to(tmp_path / "elsewhere")
    boxes = tmp_path / "Annotations"
    xml(
        boxes / "test/gull/in/2.xml",
        ("gull", 1, 1, 9, 9),
        ("heron", 9, 9, 12, 12),
        ("x", 2, 2, 8, 8),
    )
    xml(boxes / "test/3.xml", ("heron", 1, 1, 9, 9.5))
    return tmp_path


def test_objects_of_other_classes_are_left_out(voc):
    assert find_layout(voc) is VOCFolder
    assert contents(VOCFolder(voc, "test")) == [
        ("test/3.png", "heron", ((1, 1, 9, 9.5),)),
        ("test/gull/in/2.png", "gull", ((1, 1, 9, 9), (2, 2, 8, 8))),
    ]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ((), "objects of 0 classes"),
        ((("heron", 1, 1, 9, 9), ("gull", 1, 1, 9, 9)), "objects of 2 classes"),
        ((("swan", 1, 1, 9, 9),), "class swan, which has no folder in .*train"),
        ((("heron", 9, 1, 1, 9),), "3.xml: box 9,1,1,9: expected x0 < x1"),
        ((("heron", "", 1, 1, 9),), "3.xml: an entry object has no bndbox/xmin"),
        ((("heron", "a", 1, 1, 9),), "3.xml: could not convert"),
        ((("<b>", 1, 1, 9, 9),), "cannot read .*3.xml: mismatched tag"),
    ],
)
def test_a_mistake_in_an_xml_file_is_named(voc, objects, message):
    xml(voc / "Annotations" / "test" / "3.xml", *objects)
    with pytest.raises(ValueError, match=message):
        VOCFolder(voc, "train")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("image_ids.txt", "../a.jpg", "image_ids.txt, line 3: .* is no path below"),
        ("image_ids.txt", "val2/0/0.jpeg", "line 3: image val2/0/0.jpeg is listed twice"),
        ("image_ids.txt", "val2/0/2.jpeg", "class_labels.txt: no line for image val2/0/2.jpeg"),
        ("class_labels.txt", "val2/0/0.jpeg", "line 3: expected 2 comma-separated values"),
        ("class_labels.txt", "val2/0/0.jpeg,-1", "line 3: label -1 is not in 0 to"),
        ("localization.txt", "val2/0/0.jpeg,1,2,3", "line 4: expected 3 or 5 comma-separated"),
        ("localization.txt", "val2/0/0.jpeg,9,2,3,4", "line 4: box 9,2,3,4: expected x0 < x1"),
    ],
)
def test_a_mistake_in_a_published_file_is_named(published, file, line, message):
    place = published / "metadata" / "val" / file
    write_lines(place, place.read_text(), line)
    with pytest.raises(ValueError, match=message):
        PublishedLayout(published, "test")


def test_a_data_set_is_verified(voc):
    status, output, error = tool("prepare_data.py", "verify", voc)
    assert (status, error) == (0, ""), error
    assert output == (
        f"{voc} (VOCFolder): train 2 images of 2 classes, 0 boxes; val has no images of its own; "
        "test 2 images of 2 classes, 3 boxes\n"
    )


def test_verification_finds_what_does_not_fit(published):
    status, output, error = tool("prepare_data.py", "verify", published)
    assert (status, error) == (0, ""), error
    assert output == (
        f"{published} (PublishedLayout): train 4 images of 2 classes, 0 boxes; val 2 images of 2 "
        "classes, 3 boxes; test 2 images of 2 classes, 3 boxes\n"
    )
    file = published / "metadata" / "val" / "localization.txt"
    text = file.read_text()
    write_lines(file, text, "val2/0/0.jpeg,5,5,41,24")
    assert (
        "val 2 images of 2 classes, 4 boxes (1 end outside)"
        in tool("prepare_data.py", "verify", published)[1]
    )
    write_lines(file, text, "val2/0/0.jpeg,50,5,60,24")
    status, _, error = tool("prepare_data.py", "verify", published)
    expected = "box 50,5,60,24 of val2/0/0.jpeg does not lie in its image"
    assert (status, expected in error, len(error.splitlines())) == (2, True, 1), error
    write_lines(file, text)
    write_image(published / "val2/0/0.jpeg", (24, 40))
    status, _, error = tool("prepare_data.py", "verify", published)
    expected = "val2/0/0.jpeg has 24 x 40 pixels, but the data set's files say 40 x 24"
    assert (status, expected in error, len(error.splitlines())) == (2, True, 1), error
    (published / "val2/0/0.jpeg").unlink()
    status, _, error = tool("prepare_data.py", "verify", published)
    assert (status, "cannot read image" in error, len(error.splitlines())) == (2, True, 1), error


def test_the_size_in_an_xml_file_is_verified(voc):
    xml(voc / "Annotations" / "test" / "3.xml", ("heron", 1, 1, 9, 9), size=(24, 40))
    status, _, error = tool("prepare_data.py", "verify", voc, "--class_path", KIND)
    assert (status, "test/3.png has 40 x 24 pixels, but" in error) == (2, True), error
