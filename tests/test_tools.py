"""The commands as a user types them."""

import contextlib
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from robust_training.model import create_model, load_model, save_model
from wsol.coco import coco_truth
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.heatmap import Gradient
from wsol.truth import cub_truth

ROOT = Path(__file__).resolve().parents[1]


def tool(name, *arguments, cwd=None):
    """(exit status, standard output, last line of standard error that is no progress bar)."""
    output, errors = io.StringIO(), io.StringIO()
    command = [name, *map(str, arguments)]
    status = 0
    with (
        mock.patch.object(sys, "argv", command),
        contextlib.chdir(cwd or ROOT),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    return status, output.getvalue(), lines[-1] if lines else ""


def test_a_mistake_on_the_shell_shows_no_traceback(tmp_path):
    command = [sys.executable, ROOT / "tools" / "train.py", "--epocs", "3"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: unrecognized arguments: --epocs 3; did you mean epochs")
    assert result.stderr.count("\n") == 1


def train(*arguments):
    config = ROOT / "configs" / "toy_art.yaml"
    small = (
        "--data.image_size",
        32,
        "--data.num_workers",
        0,
        "--epochs",
        1,
        "--data.cache",
        "null",
    )
    return tool("train.py", "--config", config, *small, *arguments)


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "art"
    status, text, error = train("--data.root", toy, "--output", output)
    assert status == 0, error
    assert str(output / "best") in text
    return output


def test_train_localize_evaluate(run, toy, tmp_path):
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "last.ckpt", "best", "log.csv"}
    status, text, error = tool("evaluate.py", run, "--threshold", 0.2, "--report", tmp_path / "r")
    assert status == 0, error
    metrics = json.loads((run / "metrics.json").read_text())
    policies = {(row["heatmap"], row["policy"]) for row in metrics["localization"]}
    maps = ("gradient", "cam", "centred box")
    assert policies == {(m, p) for m in maps for p in ("val", "fixed:0.2", "oracle", "reference")}
    assert metrics["images"] == 20
    assert text.count("| art |") == 12 + 3 + 3
    lines = (run / "images.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 20
    assert {p.name for p in (run / "coco").iterdir()} == {
        *("truth.json", "gradient.json", "cam.json", "centred_box.json")
    }
    page = (run / "report.html").read_text()
    assert page.count("<img") == 12 * 3 + 1
    assert (tmp_path / "r").read_text().count("<img") == 12 * 3 + 1

    photos = tmp_path / "photos"
    shutil.copytree(toy / "images" / "001.Red_Finch", photos)
    status, text, error = tool("localize.py", run, photos, "--output", tmp_path / "out")
    assert status == 0, error
    boxes = json.loads((tmp_path / "out" / "boxes.json").read_text())
    assert len(boxes["images"]) == 15
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 15
    assert len(list((tmp_path / "out" / "heatmaps").iterdir())) == 15

    shutil.copy(photos / "Red_Finch_0001.jpg", photos / "Red_Finch_0001.jpeg")
    status, text, error = tool("localize.py", run, photos, "--output", photos / "inside")
    assert "16 image(s)" in text
    assert len(list((photos / "inside" / "overlays").iterdir())) == 16
    (photos / "Red_Finch_0001.jpeg").unlink()
    status, text, error = tool("localize.py", run, photos, "--output", photos / "inside")
    assert "15 image(s)" in text
    shutil.rmtree(photos / "inside")

    (photos / "broken.jpg").write_text("no image")
    status, text, error = tool("localize.py", run, photos, "--output", tmp_path / "out2")
    assert status == 1
    assert "15 image(s)" in text
    assert error.startswith("skipped: cannot read image")
    assert "broken.jpg" in error


def test_other_programs_maps_and_boxes(run, toy, tmp_path):
    """The run's own maps and boxes, handed over as files, get the run's own scores."""
    status, _, error = tool("evaluate.py", run, "--root", toy)
    assert status == 0, error
    own = json.loads((run / "metrics.json").read_text())
    data = DataConfig(str(toy), image_size=32, num_workers=0)
    model, predictions = load_model(run / "best"), []
    for split in ("test", "val"):
        for batch in data.loader(split):
            examples = [data.dataset(split).examples[i] for i in batch["index"]]
            heatmaps = Gradient()(model, batch["image"], batch["label"])
            order = model(batch["image"]).argsort(dim=1, descending=True)
            for example, heatmap, classes in zip(examples, heatmaps, order.tolist(), strict=True):
                file = tmp_path / "maps" / f"{example.name}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, heatmap)
                predictions.append(",".join(map(str, [example.name, *classes])))
    (tmp_path / "predictions.txt").write_text("\n".join(predictions))
    command = ("evaluate.py", "scoremaps", "--scoremaps", tmp_path / "maps", "--metadata", toy)
    options = ("--predictions", tmp_path / "predictions.txt", "--masks", toy / "segmentations")
    status, text, error = tool(*command, *options, "--output", tmp_path / "out", "--workers", 0)
    assert status == 0, error
    scored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    mine = [row for row in own["localization"] if row["heatmap"] == "gradient"]
    assert [row | {"heatmap": "gradient"} for row in scored["localization"]] == mine
    for key in ("reference", "pixels"):
        assert scored[key]["maps"] == own[key]["gradient"]
    headline = own["headline"]["gradient"]
    for key in ("policy", "threshold", "errors"):
        assert scored["headline"]["maps"][key] == headline[key]
    assert headline["policy"] == "val"
    assert headline["threshold"] == mine[0]["threshold"]
    assert scored["settings"]["masks"] == str(toy / "segmentations")
    assert text.count("| maps | maps |") == len(mine) + 2

    status, text, error = tool(
        *("evaluate.py", "boxes", "--results", run / "coco" / "gradient.json"),
        *("--metadata", run / "coco" / "truth.json", "--output", tmp_path / "boxes"),
    )
    assert status == 0, error
    boxes = json.loads((tmp_path / "boxes" / "metrics.json").read_text())
    (row,) = boxes["localization"]
    for key in ("gt_known_loc", "top1_loc"):
        assert row[key] == mine[0][key]
    assert boxes["headline"]["boxes"]["coco_ap50"] == headline["coco_ap50"]
    assert "| gradient | boxes | given |" in text

    (tmp_path / "maps" / "stray.npy").write_bytes(b"")
    status, _, error = tool(*command)
    assert (status, error.split(": ")[2]) == (2, "stray.npy")
    (tmp_path / "maps" / "stray.npy").unlink()
    own_cut = scored["pixels"]["maps"]["mask_cut"]
    status, text, error = tool(*command, *options, "--mask_cut", 254, "--workers", 0)
    assert own_cut == 127
    assert "(mask > 254)" in text
    bad = {
        "hold no NaN": np.full((4, 4), np.nan),
        "must lie in [0,1]": np.full((4, 4), 255.0),
        "has shape (H,W), not (3, 4, 4)": np.zeros((3, 4, 4)),
        "holds uint8, not floating": np.zeros((4, 4), np.uint8),
        "has no map for": None,
        "cannot read map": b"half",
    }
    first = sorted((tmp_path / "maps").rglob("*.npy"))[0]
    for message, content in bad.items():
        first.unlink()
        if isinstance(content, bytes):
            first.write_bytes(content)
        elif content is not None:
            np.save(first, content)
        for workers in (0, 1):
            status, _, error = tool(*command, "--workers", workers, "--output", tmp_path / "out")
            assert status == 2
            assert message in error
            assert first.name.removesuffix(".npy") in error
        first.touch()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == scored


def test_maps_of_one_split_alone_have_no_validation_threshold(toy, tmp_path):
    """Nor may the test images choose it under another name."""
    data = CUB200(toy, "test")
    truth = cub_truth(data, [(48, 48)] * len(data))
    (tmp_path / "truth.json").write_text(json.dumps(coco_truth(truth)))
    for name in truth.names:
        file = tmp_path / "maps" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.tri(16, 16))
    command = ("evaluate.py", "scoremaps", "--scoremaps", tmp_path / "maps")
    truth_file = ("--metadata", tmp_path / "truth.json")
    status, text, error = tool(*command, *truth_file, "--ious", "[0.9]")
    assert status == 0, error
    assert "| maps | maps | oracle" in text
    assert "| val" not in text
    assert "at 0.9" in text
    status, _, error = tool(*command, *truth_file, "--val_metadata", tmp_path / "truth.json")
    assert status == 2
    assert "20 maps are for validation and for test" in error
    (tmp_path / "file").write_text("")
    status, _, error = tool(*command, *truth_file, "--output", tmp_path / "file")
    assert (status, error) == (2, f"error: --output {tmp_path / 'file'} is a file, not a folder")


def test_a_saved_config_runs_again_and_a_run_is_not_overwritten(run, tmp_path):
    status, _, error = tool("train.py", "--config", run / "config.yaml", "--output", tmp_path / "b")
    assert status == 0, error
    for file in ("log.csv", "config.yaml"):
        first, again = ((folder / file).read_text() for folder in (run, tmp_path / "b"))
        if file == "log.csv":
            first, again = (t.split("\n")[1].rsplit(",", 1)[0] for t in (first, again))
        else:
            again = again.replace(str(tmp_path / "b"), str(run))
        assert first == again
    status, _, error = tool("train.py", "--config", run / "config.yaml")
    assert (status, error) == (2, f"error: {run} already holds a run; --resume continues it")


def test_a_saved_config_keeps_what_was_switched_off(run):
    """null overrides base.yaml, so it must stand in the file."""
    status, text, error = tool(
        *("train.py", "--config", run / "config.yaml", "--clip_norm", "null", "--output", "o"),
        "--print_config",
    )
    assert status == 0, error
    assert "cache: null" in (run / "config.yaml").read_text()
    assert "clip_norm: null" in text


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_training_image_is_named(toy, tmp_path, workers):
    shutil.copytree(toy, tmp_path / "data")
    for image in (tmp_path / "data" / "images").glob("*/*.jpg"):
        image.write_text("no image")
    status, _, error = train(
        *("--data.root", tmp_path / "data", "--output", tmp_path / "run"),
        *("--data.num_workers", workers),
    )
    assert status == 2
    assert error.startswith("error: cannot read image")
    assert ".jpg" in error


def test_a_vit_is_scored_without_a_class_activation_map(toy, tmp_path):
    model = create_model("test_vit", 4, image_size=32)
    save_model(model, tmp_path / "vit")
    status, text, error = tool("evaluate.py", tmp_path / "vit", "--root", toy)
    assert status == 0, error
    assert "vit: no cam for this network" in text
    assert "| vit | gradient | val" in text


def test_a_model_of_other_classes_is_not_scored(toy, tmp_path):
    save_model(create_model("test_resnet", 7, image_size=32), tmp_path / "seven")
    other = create_model("test_resnet", 4, image_size=32)
    other.class_names = list("abcd")
    save_model(other, tmp_path / "other")
    for name in ("seven", "other"):
        status, _, error = tool("evaluate.py", tmp_path / name, "--root", toy)
        assert status == 2
        assert "classes other than the 4" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "cuda:7"), "device 'cuda:7' is not there"),
        (("--threshold", 5), "threshold"),
        (("--batch_size", -1), "batch_size"),
    ],
)
def test_bad_options_of_a_good_run_cost_one_line(run, toy, arguments, message):
    for command in (("evaluate.py", run), ("localize.py", run, toy, "--output", "o")):
        status, _, error = tool(*command, *arguments)
        assert status == 2
        assert error.startswith("error: ")
        assert message in error


def test_a_failed_start_leaves_no_folder_and_no_changed_config(run, toy, tmp_path):
    for extra in (("--resume",), ("--lr_multipliers", '{"layer9": 1.0}')):
        status, _, error = train("--data.root", toy, "--output", tmp_path / "new", *extra)
        assert status == 2, error
        assert not (tmp_path / "new").exists()
    before = (run / "config.yaml").read_text()
    status, _, error = train(
        "--data.root", toy, "--output", run, "--resume", "--model.name", "resnet10t"
    )
    assert (status, (run / "config.yaml").read_text()) == (2, before), error


def test_a_mistake_in_a_file_gets_near_names_too(toy, tmp_path):
    mistakes = {
        "data: {bach_size: 3}": "batch_size",
        "objective: {init_args: {attack: {epss: 3}}}": "eps",
    }
    for text, name in mistakes.items():
        (tmp_path / "c.yaml").write_text(text)
        status, _, error = train("--config", tmp_path / "c.yaml", "--output", tmp_path / "run")
        assert status == 2
        assert f"did you mean {name}" in error


def test_prepare_draws_toy_birds(tmp_path):
    status, text, error = tool(
        "prepare_data.py", "toy", tmp_path, "--images", 12, "--size", 32, "--species", 2
    )
    assert status == 0, error
    assert (tmp_path / "CUB_200_2011" / "images.txt").is_file()
    assert str(tmp_path / "CUB_200_2011") in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.py", "--data.root", "/nowhere"), "there is no images.txt"),
        (("train.py", "--epocs", 3), "did you mean epochs"),
        (("train.py", "--objective.wieght", 3), "did you mean weight?"),
        (("train.py", "--objective.weight", "three"), "Got value: three"),
        (("train.py", "--objective.weight", -1), "weight of ART must be 0 or more"),
        (("train.py", "--objective", "ARTT"), "did you mean ART?"),
        (("train.py", "--model.name", "resnet5O"), "did you mean resnet50"),
        (("train.py", "--model.weights", "/nowhere.pth"), "there is no weights file /nowhere.pth"),
        (("train.py", "--config", "/nowhere.yaml"), "/nowhere.yaml"),
        (("evaluate.py", "/nowhere"), "is not a model folder"),
        (("evaluate.py", "scoremaps", "--scoremaps", "m", "--metadata", "/no"), "folder /no"),
        (("evaluate.py", "scoremaps", "--scorempas", "m"), "scoremaps"),
        (("evaluate.py", "boxes", "--results", "r", "--metadata", "/no"), "folder /no"),
        (("localize.py", "/nowhere", "x.jpg", "--output", "o"), "no image or folder x.jpg"),
        (("prepare_data.py", "toy", "x", "--species", 1), "species must be 2 to 10"),
        (("prepare_data.py", "tooy", "x"), "tooy"),
    ],
)
def test_a_mistake_costs_one_line_and_writes_nothing(toy, tmp_path, arguments, message):
    name, *rest = arguments
    if name == "train.py":
        config = ("--config", ROOT / "configs" / "toy_art.yaml")
        rest = [*config, "--data.root", toy, "--output", tmp_path / "run", *rest]
    status, _, error = tool(name, *rest, cwd=tmp_path)
    assert status == 2
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "config", sorted((ROOT / "configs").glob("*_*.yaml")), ids=lambda p: p.name
)
def test_every_config_parses_and_says_how_it_is_used(config):
    head = config.read_text().split("\n\n")[0]
    assert f"configs/{config.name}" in head
    assert "# Expected: " in head
    assert "# Time: " in head
    assert not {"EXPECTED", "TIME", "TODO"} & set(re.findall(r"[A-Z]+", head))
    status, text, error = tool(
        "train.py", "--config", config, "--data.root", "d", "--output", "o", "--print_config"
    )
    assert status == 0, error
    assert "class_path: robust_training.objectives." in text


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "tools").glob("*.py")))
def test_every_tool_has_help(name):
    status, text, _ = tool(name, "--help")
    assert status == 0
    assert name in text


def test_knowledge_flows_one_way():
    for file in (ROOT / "robust_training").rglob("*.py"):
        assert "import wsol" not in (text := file.read_text()), file
        assert "from wsol" not in text, file
    for file in (ROOT / "wsol").rglob("*.py"):
        assert "from tools" not in file.read_text()
