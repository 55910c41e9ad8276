"""Text of others: lines, numbers, names, and the readers that rest on them."""

import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_training.models.creating import create_model
from robust_training.models.saving import load_model, save_model
from robust_training.models.weights import load_weights
from tests.helpers.birds import birds, write_published
from wsol.annotations.metadata import read_published_metadata
from wsol.data.cub import CUB200
from wsol.data.text_files import bounded, number, read_json, read_lines, read_yaml, whole
from wsol.localizer.saved_models import chosen_threshold
from wsol.report.comparison import csv_table, epoch_seconds, read_run
from wsol.robustness.roar import write_replaced

WORDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\n\r\0\ufeff"), min_size=1
).filter(lambda text: text.strip() == text and text)


@settings(deadline=None, max_examples=50)
@given(lines=st.lists(WORDS), end=st.sampled_from(["\n", "\r\n", "\r"]), mark=st.booleans())
def test_lines_come_back_with_their_numbers(tmp_path_factory, lines, end, mark):
    """Also lines with form feeds and Unicode's line separators, at which Python would split."""
    file = tmp_path_factory.mktemp("text") / "a.txt"
    text = "\ufeff" * mark + (end + " \t" + end).join(lines)
    file.write_bytes(text.encode())
    assert list(read_lines(file)) == [(1 + 2 * row, line) for row, line in enumerate(lines)]


def test_what_is_no_text_is_named_with_its_line(tmp_path):
    file = tmp_path / "a.txt"
    for content, message in {
        b"a\nb\n\xff": "a.txt is not a UTF-8 text file: line 3",
        "a\nb".encode("utf-16"): "a.txt is not a UTF-8 text file: line 1",
        b"a\r\nb\0c": "a.txt, line 2: there is a NUL",
    }.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            list(read_lines(file))
    with pytest.raises(ValueError, match=r"cannot read .*: Is a directory"):
        list(read_lines(tmp_path))


@given(st.integers(1 - 2**53, 2**53 - 1), st.floats(-1e300, 1e300, allow_subnormal=False))
def test_numbers_come_back(integer, real):
    assert whole(str(integer)) == integer
    assert number(repr(real)) == real


@pytest.mark.parametrize("text", ["", "x", "1_0", "9" * 30, "9" * 5000, "1.5", "0x10", "1e3"])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ValueError, match=r"invalid literal|not a whole number|Exceeds the limit"):
        whole(text)


@pytest.mark.parametrize("text", ["", "x", "1_0", "nan", "inf", "-Infinity", "1e999", "1,5"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r"could not convert|not a finite number"):
        number(text)


def test_a_tree_that_holds_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="aliases"):
        bounded(loop)
    tree = {"a": [1, {"b": None}], "c": "text"}
    assert bounded(tree) is tree


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_json, ""),
        (read_json, "{"),
        (read_json, "[" * 100_000),
        (read_json, "1" * 5000),
        (read_yaml, "a: [b"),
        (read_yaml, "a: !!python/name:os.system"),
        (read_yaml, "a: 2026-99-99"),
        (read_yaml, "[" * 1000),
        (read_yaml, "a: \0"),
    ],
)
def test_what_is_no_tree_is_named(tmp_path, read, text):
    (tmp_path / "a.file").write_text(text)
    with pytest.raises(ValueError, match=r"a.file is not (JSON|YAML): "):
        read(tmp_path / "a.file")
    with pytest.raises(ValueError, match="cannot read .*nowhere"):
        read(tmp_path / "nowhere")


def test_trailing_blanks_are_no_part_of_a_name(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "CUB_200_2011")
    for file in ("images.txt", "classes.txt"):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace("\n", "  \r\n"))
    data = CUB200(folder, "test")
    assert data.classes == CUB200(toy, "test").classes
    assert data.examples[0].path.is_file()


def test_an_image_under_two_ids_is_named(toy, tmp_path):
    """It could be in the training and in the test split at once."""
    folder = shutil.copytree(toy, tmp_path / "CUB_200_2011")
    lines = (folder / "images.txt").read_text().splitlines()
    lines[1] = "2 " + lines[0].split()[1]
    (folder / "images.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"images.txt: .*_0001.jpg is listed under two ids"):
        CUB200(folder, "train")


def test_an_id_beyond_64_bits_is_named(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "CUB_200_2011")
    for file in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        text = (folder / file).read_text().split(" ", 1)[1]
        (folder / file).write_text(f"{10**30} {text}")
    with pytest.raises(ValueError, match=r"line 1: .* is not a whole number"):
        CUB200(folder, "train")


def test_a_box_that_ends_at_infinity_is_named(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "CUB_200_2011")
    text = (folder / "bounding_boxes.txt").read_text().split("\n", 1)[1]
    (folder / "bounding_boxes.txt").write_text(f"1 1e308 1 1e308 1\n{text}")
    with pytest.raises(ValueError, match=r"bounding_boxes.txt, line 1: expected x y"):
        CUB200(folder, "train")


def test_a_separator_in_a_name_ends_no_line(tmp_path):
    truth = birds([(2, 2, 10, 12)] * 2)
    folder = write_published(tmp_path / "meta", truth)
    for file in folder.iterdir():
        file.write_text(file.read_text().replace("0.jpg", "a\u2028b\x0c.jpg"))
    assert read_published_metadata(folder).names == ("a\u2028b\x0c.jpg", "1.jpg")


def test_two_images_of_one_stem_stay_two(toy, tmp_path):
    """a.jpg and a.png had one name once their pixels were replaced."""
    folder = shutil.copytree(toy, tmp_path / "CUB_200_2011")
    lines = (folder / "images.txt").read_text().splitlines()
    first, second = (folder / "images" / line.split()[1] for line in lines[:2])
    other = first.with_suffix(".png")
    second.rename(other)
    lines[1] = f"2 {other.relative_to(folder / 'images')}"
    (folder / "images.txt").write_text("\n".join(lines))
    splits = [CUB200(folder, "train"), CUB200(folder, "test")]
    model = create_model("test_resnet", 4, image_size=48).eval()
    out = tmp_path / "out"
    write_replaced(out, model, splits, importance=lambda m, x: x[:, 0], fraction=0.5, mode="roar")
    assert len(CUB200(out, "train")) + len(CUB200(out, "test")) == 60


@pytest.fixture
def run(tmp_path):
    row = {"heatmap": "gradient", "policy": "val", "threshold": 0.4}
    row |= {"gt_known_loc": 0.5, "top1_loc": 0.25}
    (tmp_path / "log.csv").write_text("epoch,seconds\n1,2.5\n2,3.5\n")
    return tmp_path, {"top1_accuracy": 0.5, "localization": [row]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(top1_accuracy="high"), "accuracy is 'high', not a fraction"),
        (lambda m: m.update(top1_accuracy=50.0), "accuracy is 50.0, not a fraction"),
        (lambda m: m.update(top1_accuracy=True), "accuracy is True, not a fraction"),
        (lambda m: m.update(localization=None), "NoneType"),
        (lambda m: m["localization"].insert(0, 3), "not subscriptable"),
        (lambda m: m["localization"][0].pop("gt_known_loc"), "gt_known_loc"),
    ],
)
def test_a_damaged_run_is_not_compared(run, change, message):
    folder, metrics = run
    change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=f"is not a finished run: .*{message}"):
        read_run("a", 0, folder)


def test_a_number_that_nothing_measured_is_left_out(run):
    folder, metrics = run
    metrics["top1_accuracy"] = math.nan
    (folder / "metrics.json").write_text(json.dumps(metrics))
    found = read_run("a", 0, folder)
    assert found.scores["accuracy"] is None
    assert "nan" not in csv_table([found])


@pytest.mark.parametrize("line", ["3", "3,x", "3,nan", "3,1,2", '3,"1', "3,1_0"])
def test_a_damaged_log_is_named(run, line):
    folder, _ = run
    assert epoch_seconds(folder) == [2.5, 3.5]
    with open(folder / "log.csv", "a") as log:
        log.write(line)
    with pytest.raises(ValueError, match=r"log.csv, line 4: "):
        epoch_seconds(folder)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -0.1, 20, 10**400, "x", None, [0.2]])
def test_a_threshold_outside_of_a_map_is_refused(run, threshold):
    folder, metrics = run
    metrics["localization"][0]["threshold"] = threshold
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"metrics.json"):
        chosen_threshold(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("std", [0.5, 0, 0.5]),
        ("mean", [math.inf, 0, 0]),
        ("mean", [0.5, 0.5]),
        ("input_size", [3, 10**9, 10**9]),
        ("input_size", [3, 0, 0]),
        ("label_names", ["a", "b"]),
        ("label_names", ["a", "b", 3]),
        ("label_names", "abc"),
        ("pretrained_cfg", "x"),
        ("architecture", {}),
    ],
)
def test_a_model_that_would_give_wrong_maps_is_refused(tmp_path, key, value):
    model = create_model("test_resnet", 3, image_size=32)
    model.class_names = ["a", "b", "c"]
    save_model(model, tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    place = config["pretrained_cfg"] if key in config["pretrained_cfg"] else config
    place[key] = value
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"cannot build the model of .*config.json"):
        load_model(tmp_path / "m")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    backbone = create_model("test_resnet", 3).backbone
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    state["fc.weight"][1, 2] = math.nan
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth .*: fc.weight has numbers that are not finite"):
        load_weights(backbone, tmp_path / "a.pth")
