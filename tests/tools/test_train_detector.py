"""The tool as users type it: what it writes, how it goes on, what it refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from tests.helpers.commands import tool
from wsol.cli.run_folder import lock_folder
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.detectors import load_detector
from wsol.detectors.training import Training, fit_detector
from wsol.experiments.pseudo_labels.pseudo_boxes import examples, read_pseudo_labels

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
def trained(small, tmp_path_factory):
    """The tool with a localizer and the ceiling, at a fixed threshold."""
    output = tmp_path_factory.mktemp("detectors") / "out"
    labels = ("--pseudo_labels", "gradient", "oracle", "--threshold", 0.3)
    status, text, error = tool("train_detector.py", small, *labels, "--output", output, *SMALL)
    assert status == 0, error
    return output, text


def test_the_tool_scores_detectors_beside_pseudo_labels_baselines_and_oracle(small, toy, trained):
    output, text = trained
    result = json.loads((output / "detectors.json").read_text())
    names = [(row["name"], row["policy"]) for row in result["scores"]]
    assert names == [
        ("gradient", "fixed:0.3"),
        ("detector trained on gradient", "fixed:0.3"),
        ("centred box", "fixed:0.3"),
        ("detector trained on centred box", "fixed:0.3"),
        ("detector trained on oracle", "oracle"),
    ]
    assert text.split("\n\nthe detectors")[0] in (output / "detectors.md").read_text()
    pairs = [(row["name"], row["less"]) for row in result["differences"]]
    detector = "detector trained on gradient"
    others = ("gradient", "centred box", "detector trained on centred box")
    assert pairs[:3] == [(detector, other) for other in others]
    assert pairs[3:] == [("detector trained on centred box", "centred box")]
    folder = output / "gradient"
    for boxes in (folder, folder / "seed0"):  # what evaluate.py says of the same files
        status, scores, error = tool(
            "evaluate.py", "boxes", "--results", boxes / "results.json", "--metadata", toy
        )
        assert status == 0, error
        row = result["scores"][boxes != folder]
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


def test_no_true_box_of_a_training_image_is_read(small, toy, trained, tmp_path):
    """Other true boxes there: the same pseudo labels and, bit by bit, the same detector. Then
    without any: training needs only images and the COCO files of pseudo labels."""
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
        assert ours == (trained[0] / "gradient" / name).read_bytes()
    for name in ("model.safetensors", "head.safetensors"):
        ours = (tmp_path / "out" / "gradient" / "seed0" / name).read_bytes()
        assert ours == (trained[0] / "gradient" / "seed0" / name).read_bytes()

    (data / "bounding_boxes.txt").unlink()
    labels = read_pseudo_labels(trained[0] / "gradient")
    config = DataConfig(str(data), image_size=32, batch_size=8, num_workers=0)
    loaders = (
        config.loader_of(examples(labels.boxes[split], data / "images"), training=split == "train")
        for split in ("train", "val")
    )
    network = load_detector(trained[0] / "gradient" / "seed0")
    log = fit_detector(network, *loaders, Training(epochs=1))
    assert 0 <= log[0]["val_iou"] <= 1


def test_a_folder_of_coco_boxes_trains_faster_rcnn(small, trained, tmp_path):
    kind = ("--detector", "FasterRCNN", "--detector.levels", 2, *SMALL)
    labels = ("--pseudo_labels", trained[0] / "gradient")
    output = tmp_path / "out"
    status, text, error = tool("train_detector.py", small, *labels, "--output", output, *kind)
    assert status == 0, error
    assert "| detector trained on gradient | given |" in text
    assert load_detector(output / "gradient" / "seed0").class_names[0].startswith("001.")


def test_finished_detectors_are_attacked_and_the_result_is_kept(small, trained, tmp_path):
    output, _ = trained
    shutil.copytree(output, tmp_path / "out")
    labels = ("--pseudo_labels", "gradient", "--threshold", 0.3, "--attack.images", 5)
    command = (small, *labels, "--output", tmp_path / "out", *SMALL)
    status, text, error = tool("train_detector.py", *command)
    assert status == 0, error
    heads = "| boxes of | seed | attack on the box | GT-known | attacked | change |"
    assert heads in text
    kind = "PGD linf 2/255, 10 steps, 5 images"
    assert text.count(f"| 0 | {kind} |") == 2  # the map's detector, and the baseline's
    rows = json.loads((tmp_path / "out" / "detectors.json").read_text())["scores"]
    (attacked,) = rows[1]["attacked"]
    assert (attacked["images"], attacked["of_images"]) == (5, 20)
    assert attacked["iou_with_clean"]["mean"] < 1
    file = tmp_path / "out" / "gradient" / "seed0" / "attacked.json"
    changed = json.loads(file.read_text())
    changed["under_noise"]["mean"] = 0.123
    file.write_text(json.dumps(changed))
    assert "| 12.3 " in tool("train_detector.py", *command)[1]
    again = tool("train_detector.py", *command, "--attack.attack.steps", 2)[1]
    assert "2/255, 2 steps, 5 images" in again
    assert "| 12.3 " not in again
    file.write_text("{")
    status, _, error = tool("train_detector.py", *command)
    assert (status, "attacked.json" in error) == (2, True)
    status, _, error = tool("train_detector.py", *command, "--attack.images", 0)
    assert (status, "images of a BoxAttack must be at least 1" in error) == (2, True)


def test_boxes_of_localize_are_pseudo_labels(small, run, toy, tmp_path):
    """Those of training and validation images are learned; those of test images are scored."""
    boxes = tmp_path / "found"
    status, _, error = tool(
        "localize.py", run, toy / "images", "--pictures", "false", "--output", boxes
    )
    assert status == 0, error
    file = f"{boxes}//boxes.json"  # pathlib writes it in another way
    options = ("--pseudo_labels", file, "--output", tmp_path / "out", *SMALL)
    status, _, error = tool("train_detector.py", small, *options)
    assert status == 0, error
    status, scores, error = tool(
        "evaluate.py", "boxes", "--results", boxes / "boxes.json", "--metadata", toy
    )
    assert status == 0, error
    rows = json.loads((tmp_path / "out" / "detectors.json").read_text())["scores"]
    assert [(row["name"], row["policy"]) for row in rows] == [
        ("found", "given"),
        ("detector trained on found", "given"),
    ]
    assert f"{100 * rows[0]['gt_known_loc']['mean']:.1f} [" in scores.splitlines()[2]
    content = json.loads((boxes / "boxes.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    where = {names[each["image_id"]]: each["bbox"] for each in content["annotations"]}
    learned = read_pseudo_labels(tmp_path / "out" / "found").boxes["train"]
    assert learned.names == tuple(e.name for e in CUB200(toy, "train", val_fraction=0.1).examples)
    for name, (box,) in zip(learned.names, learned.boxes.tolist(), strict=True):
        x, y, width, height = where[name]
        assert box == pytest.approx([x, y, x + width, y + height])
    tested = {e.name for e in CUB200(toy, "test").examples}
    without = [a for a in content["annotations"] if names[a["image_id"]] not in tested]
    others = [image for image in content["images"] if image["file_name"] not in tested]
    (boxes / "boxes.json").write_text(
        json.dumps(content | {"images": others, "annotations": without})
    )
    status, _, error = tool("train_detector.py", small, *options)
    assert status == 0, error  # the same detector; without test images, only it is scored
    scores = json.loads((tmp_path / "out" / "detectors.json").read_text())["scores"]
    assert [row["name"] for row in scores] == ["detector trained on found"]
    content["annotations"].append(content["annotations"][0] | {"id": 1000})
    (boxes / "boxes.json").write_text(json.dumps(content))
    status, _, error = tool("train_detector.py", small, *options[:3], tmp_path / "more", *SMALL)
    assert (status, "has several boxes for an image; exactly one is needed" in error) == (2, True)


def test_given_boxes_are_of_images_to_learn_from(small, toy, trained, tmp_path):
    """No test image is trained on, and boxes count the pixels of the file."""
    tested = CUB200(toy, "test", val_fraction=0.1).examples[0].name
    given = json.loads((trained[0] / "gradient" / "train.json").read_text())
    shutil.copytree(trained[0] / "gradient", tmp_path / "given")
    for change, message in (
        ({"file_name": tested}, f"train.json of given has a box of {tested}, which is a test"),
        ({"file_name": f"../images/{tested}"}, "which is a test image"),
        ({"width": 4000}, "train.json of given: .* has 4000 x .* pixels; the file has"),
        ({"file_name": "nowhere.jpg"}, "cannot read image .*nowhere.jpg"),
    ):
        first, *others = given["images"]
        content = given | {"images": [first | change, *others]}
        (tmp_path / "given" / "train.json").write_text(json.dumps(content))
        options = ("--pseudo_labels", tmp_path / "given", "--output", tmp_path / "out", *SMALL)
        status, _, error = tool("train_detector.py", small, *options)
        assert status == 2
        assert re.search(message, error), error
        assert not (tmp_path / "out").exists()


def contents(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder): file.read_bytes() for file in files}


def test_the_same_command_goes_on_and_another_is_refused(small, trained, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(trained[0], output)
    before = contents(output)
    (output / "detectors.json").unlink()
    shutil.rmtree(output / "oracle" / "seed0")  # what was interrupted here, left this
    (output / "oracle" / ".seed0.partial").mkdir()
    (output / "oracle" / ".seed0.partial" / "head.safetensors").touch()
    for name in ("score.json", "results.json"):  # scoring was interrupted here
        (output / "gradient" / "seed0" / name).unlink()
    kept = output / "gradient" / "seed0" / "model.safetensors"
    written = kept.stat().st_mtime_ns
    command = (
        "--pseudo_labels",
        "gradient",
        "oracle",
        "--threshold",
        0.3,
        "--output",
        output,
        *SMALL,
    )
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
    shutil.copytree(trained[0] / "gradient", given)
    status, _, error = tool("train_detector.py", small, *command, "--pseudo_labels", given)
    assert (status, "another boxes" in error) == (2, True), error
    with lock_folder(output):
        status, _, error = tool("train_detector.py", small, *command)
    assert (status, "another process is training in" in error) == (2, True)
    assert contents(output) == after


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--pseudo_labels", "gradeint"),
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


def test_an_old_output_or_another_data_set_is_refused(small, trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    status, _, error = tool("train_detector.py", small, "--output", tmp_path / "mine")
    assert (status, "exists already; name a new folder" in error) == (2, True)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    broken = tmp_path / "labels"
    shutil.copytree(trained[0] / "gradient", broken)
    options = ("--pseudo_labels", broken, "--output", tmp_path / "out", *SMALL)
    dataset = json.loads((broken / "val.json").read_text())
    dataset["categories"][0]["name"] = "another"
    (broken / "val.json").write_text(json.dumps(dataset))
    status, _, error = tool("train_detector.py", small, *options)
    assert (status, "val.json of labels has other classes" in error) == (2, True)
    (broken / "val.json").unlink()
    status, _, error = tool("train_detector.py", small, *options)
    assert (status, "val.json" in error) == (2, True)
