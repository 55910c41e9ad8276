"""The tool as users type it: what it writes, how it goes on, what it refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_training.models.classifier import create_model, save_model
from tests.helpers.commands import tool
from wsol.cli.run_folder import lock_folder
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.detectors import load_detector
from wsol.detectors.training import Training, fit_detector
from wsol.pseudo_labels.boxes import examples, read_teacher

SMALL = ("--training.epochs", 1, "--detector.width", 8, "--batch_size", 8)


@pytest.fixture(scope="module")
def small(toy, tmp_path_factory):
    """A run's folder: a network that nothing has trained, whose gradients are not zero."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32)
    torch.nn.init.normal_(model.backbone.fc.weight)
    save_model(model, folder / "best")
    data = {"root": str(toy), "image_size": 32, "num_workers": 0}
    (folder / "config.yaml").write_text(json.dumps({"data": data}))
    return folder


@pytest.fixture(scope="module")
def taught(small, tmp_path_factory):
    """The tool with a localizer and the ceiling, at a fixed threshold."""
    output = tmp_path_factory.mktemp("detectors") / "out"
    teachers = ("--teachers", "gradient", "oracle", "--threshold", 0.3)
    status, text, error = tool("train_detector.py", small, *teachers, "--output", output, *SMALL)
    assert status == 0, error
    return output, text


def test_the_tool_scores_students_beside_teachers_floors_and_ceiling(small, toy, taught):
    output, text = taught
    result = json.loads((output / "detectors.json").read_text())
    names = [(row["name"], row["policy"]) for row in result["scores"]]
    assert names == [
        ("gradient", "fixed:0.3"),
        ("student of gradient", "fixed:0.3"),
        ("centred box", "fixed:0.3"),
        ("student of centred box", "fixed:0.3"),
        ("student of oracle", "oracle"),
    ]
    assert text.split("\n\nthe detectors")[0] in (output / "detectors.md").read_text()
    pairs = [(row["name"], row["less"]) for row in result["differences"]]
    student = "student of gradient"
    others = ("gradient", "centred box", "student of centred box")
    assert pairs[:3] == [(student, other) for other in others]
    assert pairs[3:] == [("student of centred box", "centred box")]
    folder = output / "gradient"
    for teacher in (folder, folder / "seed0"):  # what evaluate.py says of the same files
        status, scores, error = tool(
            "evaluate.py", "boxes", "--results", teacher / "results.json", "--metadata", toy
        )
        assert status == 0, error
        row = result["scores"][teacher != folder]
        assert f"{100 * row['gt_known_loc']['mean']:.1f} [" in scores.splitlines()[2]
    detector = load_detector(folder / "seed0")
    dataset = DataConfig(str(toy), image_size=32).dataset("test")
    with torch.no_grad():
        found = detector(torch.stack([dataset[i]["image"] for i in range(3)]))
    results = json.loads((folder / "seed0" / "results.json").read_text())
    for each, said, example in zip(found, results[:3], dataset.examples, strict=False):
        x, y, width, height = said["bbox"]
        box = np.array([x, y, x + width, y + height]) / 48
        np.testing.assert_allclose(each.boxes[0].numpy(), box, atol=1e-5)
        assert said["image_id"] == example.identity


def test_no_true_box_of_a_training_image_is_read(small, toy, taught, tmp_path):
    """Other true boxes there: the same pseudo-boxes and, bit by bit, the same student. Then without
    any: training needs images and the teacher's COCO files alone."""
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    training = {e.identity for e in CUB200(toy, "train").examples}
    lines = [line.split() for line in (data / "bounding_boxes.txt").read_text().splitlines()]
    boxes = [[i, "1", "1", "2", "3"] if int(i) in training else [i, *box] for i, *box in lines]
    (data / "bounding_boxes.txt").write_text("\n".join(" ".join(line) for line in boxes))
    options = ("--threshold", 0.3, "--root", data, "--output", tmp_path / "out", *SMALL)
    status, _, error = tool("train_detector.py", small, *options)
    assert status == 0, error
    for name in ("train.json", "val.json", "results.json", "seed0/results.json"):
        ours = (tmp_path / "out" / "gradient" / name).read_bytes()
        assert ours == (taught[0] / "gradient" / name).read_bytes()
    for name in ("model.safetensors", "head.safetensors"):
        ours = (tmp_path / "out" / "gradient" / "seed0" / name).read_bytes()
        assert ours == (taught[0] / "gradient" / "seed0" / name).read_bytes()

    (data / "bounding_boxes.txt").unlink()
    teacher = read_teacher(taught[0] / "gradient")
    config = DataConfig(str(data), image_size=32, batch_size=8, num_workers=0)
    loaders = (
        config.loader_of(examples(teacher.boxes[split], data / "images"), training=split == "train")
        for split in ("train", "val")
    )
    network = load_detector(taught[0] / "gradient" / "seed0")
    log = fit_detector(network, *loaders, Training(epochs=1))
    assert 0 <= log[0]["val_iou"] <= 1


def test_a_folder_of_coco_boxes_teaches_faster_rcnn(small, taught, tmp_path):
    kind = ("--detector", "FasterRCNN", "--detector.levels", 2, *SMALL)
    teachers = ("--teachers", taught[0] / "gradient")
    output = tmp_path / "out"
    status, text, error = tool("train_detector.py", small, *teachers, "--output", output, *kind)
    assert status == 0, error
    assert "| student of gradient | given |" in text
    assert load_detector(output / "gradient" / "seed0").class_names[0].startswith("001.")


def test_given_boxes_are_of_images_to_learn_from(small, toy, taught, tmp_path):
    """No test image teaches, and boxes count the pixels of the file."""
    tested = CUB200(toy, "test", val_fraction=0.1).examples[0].name
    lesson = json.loads((taught[0] / "gradient" / "train.json").read_text())
    shutil.copytree(taught[0] / "gradient", tmp_path / "given")
    for change, message in (
        ({"file_name": tested}, f"train.json of given has a box of {tested}, which is a test"),
        ({"file_name": f"../images/{tested}"}, "which is a test image"),
        ({"width": 4000}, "train.json of given says that .* has 4000 x .* pixels; it has"),
        ({"file_name": "nowhere.jpg"}, "cannot read image .*nowhere.jpg"),
    ):
        first, *others = lesson["images"]
        content = lesson | {"images": [first | change, *others]}
        (tmp_path / "given" / "train.json").write_text(json.dumps(content))
        options = ("--teachers", tmp_path / "given", "--output", tmp_path / "out", *SMALL)
        status, _, error = tool("train_detector.py", small, *options)
        assert status == 2
        assert re.search(message, error), error
        assert not (tmp_path / "out").exists()


def contents(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder): file.read_bytes() for file in files}


def test_the_same_command_goes_on_and_another_is_refused(small, taught, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(taught[0], output)
    before = contents(output)
    (output / "detectors.json").unlink()
    shutil.rmtree(output / "oracle" / "seed0")  # what was interrupted here, left this
    (output / "oracle" / ".seed0.partial").mkdir()
    (output / "oracle" / ".seed0.partial" / "head.safetensors").touch()
    kept = output / "gradient" / "seed0" / "model.safetensors"
    written = kept.stat().st_mtime_ns
    command = ("--teachers", "gradient", "oracle", "--threshold", 0.3, "--output", output, *SMALL)
    status, _, error = tool("train_detector.py", small, *command)
    assert status == 0, error
    assert kept.stat().st_mtime_ns == written
    after = contents(output)
    timed = {each for each in before if each.name in ("score.json", "log.csv")}
    timed |= {Path("detectors.md"), Path("detectors.json")}
    assert after.keys() == before.keys()
    assert all(after[file] == before[file] for file in before.keys() - timed)

    for option, message in (
        (("--training.epochs", 2), "another training.epochs 1"),
        (("--detector.grid", 2), "another detector.grid 4"),
        (("--threshold", 0.4), "another threshold 0.3"),
        (("--batch_size", 4), "another data.batch_size 8"),
        (("--detector", "FasterRCNN"), "another detector Regressor"),
    ):
        status, _, error = tool("train_detector.py", small, *command, *option)
        assert (status, message in error) == (2, True), error
    # boxes of the same name from somewhere else
    given = tmp_path / "gradient"
    shutil.copytree(taught[0] / "gradient", given)
    status, _, error = tool("train_detector.py", small, *command, "--teachers", given)
    assert (status, "another boxes" in error) == (2, True), error
    with lock_folder(output):
        status, _, error = tool("train_detector.py", small, *command)
    assert (status, "another process is training in" in error) == (2, True)
    assert contents(output) == after


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--teachers", "gradeint"),
            "there is no heatmap method 'gradeint'; did you mean gradient?",
        ),
        (("--seeds", 1, 1), "names a seed twice"),
        (("--detector", "Regresor"), "did you mean Regressor"),
        (("--detector.gird", 2), "did you mean grid"),
        (("--detector.grid", 0), "grid and width must be at least 1"),
        (("--training.epochs", 0), "epochs must be at least 1"),
        (("--weights", "nowhere.safetensors"), "there is no weights file nowhere.safetensors"),
        (("--threshold", 2), "threshold"),
        (("--device", "nowhere"), "device 'nowhere' is not there"),
    ],
)
def test_mistakes_cost_one_line(small, tmp_path, options, message):
    output = tmp_path / "out"
    common = ("--output", output)
    status, _, error = tool("train_detector.py", small, *common, *options)
    assert status == 2
    assert message in error
    assert not output.exists()


def test_an_old_output_or_another_data_set_is_refused(small, taught, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    status, _, error = tool("train_detector.py", small, "--output", tmp_path / "mine")
    assert (status, "exists already; name a new folder" in error) == (2, True)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    broken = tmp_path / "teacher"
    shutil.copytree(taught[0] / "gradient", broken)
    options = ("--teachers", broken, "--output", tmp_path / "out", *SMALL)
    dataset = json.loads((broken / "val.json").read_text())
    dataset["categories"][0]["name"] = "another"
    (broken / "val.json").write_text(json.dumps(dataset))
    status, _, error = tool("train_detector.py", small, *options)
    assert (status, "val.json of teacher has other classes" in error) == (2, True)
    (broken / "val.json").unlink()
    status, _, error = tool("train_detector.py", small, *options)
    assert (status, "val.json" in error) == (2, True)
