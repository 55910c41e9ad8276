import contextlib
import hashlib
import os
import resource
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from wsol.data.cub import CUB200
from wsol.data.image_files import read_image
from wsol.data.loaders import DataConfig
from wsol.data.toy_birds.birds import SPECIES, draw
from wsol.data.toy_birds.writing import write_toy_birds
from wsol.data.transforms import eval_transform, network_input, train_transform


@pytest.fixture
def copy(toy, tmp_path):
    """A data set to break."""
    folder = tmp_path / "CUB_200_2011"
    shutil.copytree(toy, folder)
    return folder


def test_the_official_layout_is_read(toy):
    train, test = CUB200(toy, "train"), CUB200(toy, "test")
    assert (len(train), len(test)) == (40, 20)
    assert train.classes == [f"{i + 1:03d}.{SPECIES[i].name}" for i in range(4)]
    item = test[7]
    assert item["image"].shape == (3, 48, 48)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    example = test.examples[7]
    assert example.label == item["label"] == int(example.name[:3]) - 1


def test_every_nesting_level_opens(toy, tmp_path):
    nested = tmp_path / "CUB_200_2011"
    nested.mkdir()
    (nested / "CUB_200_2011").symlink_to(toy)
    for root in (toy, toy.parent, tmp_path):
        assert len(CUB200(root, "test")) == 20
    with pytest.raises(ValueError, match=r"no CUB_200_2011 data set at .*nowhere"):
        CUB200(tmp_path / "nowhere", "test")


def test_validation_is_held_out_of_training(toy):
    sets = {split: CUB200(toy, split, val_fraction=0.2) for split in ("train", "val", "test")}
    names = {split: {e.name for e in data.examples} for split, data in sets.items()}
    assert [len(n) for n in names.values()] == [32, 8, 20]
    assert not names["train"] & names["val"]
    assert names["train"] | names["val"] == {e.name for e in CUB200(toy, "train").examples}
    assert sorted(e.label for e in sets["val"].examples) == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="val split .* is empty; give a val_fraction"):
        CUB200(toy, "val")


def test_masks_and_boxes_agree(toy):
    data = CUB200(toy, "train")
    for index in range(5):
        x, y, width, height = cv2.boundingRect(data.mask(index).astype(np.uint8))
        assert data.examples[index].boxes[0] == (x, y, x + width, y + height)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("images.txt", "x 001.a/b.jpg", r"images.txt, line 3"),
        ("images.txt", "1 001.a/b.jpg", r"images.txt, line 3: id 1 is listed twice"),
        ("image_class_labels.txt", "3 99", r"classes.txt: no line for class 99"),
        ("image_class_labels.txt", "3", r"image_class_labels.txt, line 3: expected an id and 1"),
        ("train_test_split.txt", "3 2", r"train_test_split.txt, line 3: expected 1"),
        ("bounding_boxes.txt", "3 1 2 3", r"bounding_boxes.txt, line 3: expected an id and 4"),
        ("bounding_boxes.txt", "3 1 2 nan 4", r"bounding_boxes.txt, line 3: nan is not a finite"),
        ("bounding_boxes.txt", "3 1 2 0 4", r"bounding_boxes.txt, line 3: expected x y width"),
        ("bounding_boxes.txt", "", r"bounding_boxes.txt: no line for image 3"),
    ],
)
def test_a_malformed_line_is_named(copy, file, line, message):
    lines = (copy / file).read_text().splitlines()
    lines[2] = line
    (copy / file).write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        CUB200(copy, "train")


def test_a_missing_file_and_a_binary_one_are_named(copy):
    (copy / "bounding_boxes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bounding_boxes.txt is not a UTF-8"):
        CUB200(copy, "train")
    (copy / "bounding_boxes.txt").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*bounding_boxes.txt"):
        CUB200(copy, "train")


def test_a_missing_or_broken_image_is_named(copy):
    data = CUB200(copy, "test")
    data.examples[0].path.write_text("no image")
    with pytest.raises(ValueError, match="cannot read image .*_0001.jpg"):
        data[0]
    data.examples[0].path.unlink()
    with pytest.raises(ValueError, match="it does not exist"):
        data[0]


def test_grayscale_palette_and_alpha_become_rgb(tmp_path):
    gray = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    for mode in ("L", "P", "RGBA", "CMYK"):
        file = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        gray.convert(mode).save(file)
        assert read_image(file).shape == (3, 4, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "L.png")[..., 1], np.asarray(gray))


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(np.array([[0, 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 255]


def test_camera_orientation_is_applied_on_request(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (4, 8, 3)
    assert read_image(tmp_path / "a.jpg", upright=True).shape == (8, 4, 3)


def square(size=(40, 60), box=(10, 5, 30, 25)):
    """A white square on black, and its box."""
    pixels = np.zeros((*size, 3), np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 255
    return pixels, np.array([box], float)


def test_boxes_follow_the_test_transform():
    pixels, box = square()
    changed = eval_transform(80)(image=pixels, bboxes=box)
    assert changed["image"].shape == (80, 80, 3)
    np.testing.assert_allclose(changed["bboxes"][0], [40 / 3, 10, 40, 50], atol=1e-4)


@pytest.mark.parametrize("transform", [eval_transform(24), None])
def test_files_and_tensors_become_the_same_input(transform):
    pixels, box = square()
    image, boxes = network_input(pixels, transform, box)
    assert image.dtype == torch.float32
    assert image.shape == (3, 24, 24) if transform else (3, *pixels.shape[:2])
    assert (len(boxes), image.max()) == (1, 1)
    again, none = network_input((pixels / 255).astype(np.float32), transform)
    assert len(none) == 0
    torch.testing.assert_close(image, again, rtol=0, atol=1 / 255)


def test_boxes_follow_the_train_transform():
    pixels, box = square()
    transform = train_transform(64, 80)
    kept = 0
    for seed in range(20):
        transform.set_random_seed(seed)
        changed = transform(image=pixels, bboxes=box)
        if len(changed["bboxes"]):
            kept += 1
            rows, columns = np.nonzero(changed["image"][..., 0] > 127)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(changed["bboxes"][0], found, atol=1.01)
    assert kept > 10
    with pytest.raises(ValueError, match="crop must fit"):
        train_transform(64, 60)


def test_training_images_are_mirrored_unless_the_data_say_no(toy):
    config = DataConfig(str(toy), image_size=32, resize=32, batch_size=8, num_workers=0)
    upright = {
        image.numpy().tobytes()
        for batch in config.in_order(config.dataset("train"))
        for image in batch["image"]
    }
    for flips in (True, False):
        images = torch.cat(
            [b["image"] for b in replace(config, horizontal_flip=flips).training_loader()]
        )
        mirrored = sum(image.numpy().tobytes() not in upright for image in images)
        assert (mirrored > 0) is flips


@pytest.mark.parametrize("workers", [0, 2])
def test_one_seed_decides_the_augmentation(toy, workers):
    config = DataConfig(str(toy), image_size=32, batch_size=8, num_workers=workers)
    epochs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        epochs.append(torch.cat([batch["image"] for batch in config.training_loader()]))
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(bytes(p.relative_to(folder)) + p.read_bytes() for p in files))


def test_toy_birds_are_the_same_bytes_for_the_same_seed(tmp_path):
    sums = [
        digest(
            write_toy_birds(tmp_path / str(i), images=12, size=32, species=3, seed=seed)
        ).hexdigest()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert sums[0] == sums[1] != sums[2]


def test_a_tie_puts_each_species_before_its_own_background(tmp_path):
    for tie, kinds in ((1.0, 1), (0.0, 5)):
        folder = write_toy_birds(
            tmp_path / str(tie), images=60, size=32, species=2, background_tie=tie
        )
        background = dict(line.split() for line in (folder / "backgrounds.txt").open())
        first = {
            background[str(e.identity)] for e in CUB200(folder, "train").examples if not e.label
        }
        assert len(first) == kinds


def test_toy_places_and_sizes_vary(toy):
    boxes = np.array([e.boxes[0] for e in CUB200(toy, "train").examples])
    centres, areas = (boxes[:, :2] + boxes[:, 2:]) / 2, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    assert (centres.std(axis=0) > 4).all()
    assert areas.max() > 3 * areas.min()


def test_few_distractors_leave_plain_backgrounds():
    """Far from the bird an image without distractors has only the background's own texture."""
    spread = {}
    for count in (0, 40):
        images = [
            draw(SPECIES[0], "sky", 64, np.random.default_rng(seed), distractors=(count, count))
            for seed in range(10)
        ]
        spread[count] = np.mean([image[mask == 0].std(axis=0).mean() for image, mask in images])
    assert spread[0] < 0.7 * spread[40]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"species": 1}, "species"),
        ({"images": 3}, "images"),
        ({"size": 8}, "size"),
        ({"background_tie": 2.0}, "background_tie"),
        ({"test_fraction": 0.0}, "test_fraction"),
        ({"distractors": (3, 2)}, "distractors"),
    ],
)
def test_bad_toy_settings_are_named(tmp_path, arguments, word):
    with pytest.raises(ValueError, match=f"{word} must"):
        write_toy_birds(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_data_set_is_not_overwritten(toy):
    with pytest.raises(ValueError, match="already exists"):
        write_toy_birds(toy.parent, images=60, size=48, species=4)


def test_real_birds(shared):
    data = CUB200(shared / "data" / "cub10", "train")
    assert (len(data), len(CUB200(shared / "data" / "cub10", "test"))) == (300, 121)
    assert len(data.classes) == 10
    assert data[0]["image"].ndim == 3


def test_timms_own_transforms_of_a_saved_model_show_the_whole_frame(shared, tmp_path):
    """On photographs of birds, wider than high; timm's default mode would cut their sides off."""
    save_model(create_model("test_resnet", 2, image_size=96), tmp_path / "model")
    opened = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=False)
    config = timm.data.resolve_model_data_config(opened)
    pixels = timm.data.create_transform(**config | {"mean": (0, 0, 0), "std": (1, 1, 1)})
    dataset = CUB200(shared / "data" / "cub10", "test")
    files = [example.path for example in dataset.examples[:20]]
    for file in files:
        ours, _ = network_input(read_image(file), eval_transform(96))
        theirs = pixels(Image.open(file).convert("RGB"))
        assert theirs.shape == ours.shape
        assert (theirs - ours).abs().mean() < 0.02


@pytest.mark.parametrize(("limit", "expected"), [(24, 0), (60, 1), (4096, 4), (-1, 4)])
def test_loader_processes_fit_the_number_of_open_files(toy, monkeypatch, limit, expected):
    """-1 is no limit; there is no other process if there are too few for one."""
    opened = [str(number) for number in range(20)]
    monkeypatch.setattr(os, "listdir", lambda folder: opened)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    config = DataConfig(str(toy), image_size=32, num_workers=4, batch_size=2)
    few = expected < 4
    expectation = pytest.warns(UserWarning, match=f"only {limit} files.*so {expected} are used")
    with expectation if few else contextlib.nullcontext():
        assert config.loader("test").num_workers == expected
    with expectation if few else contextlib.nullcontext():
        assert config.training_loader().num_workers == expected
