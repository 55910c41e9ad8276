"""The commands as a user types them."""

import csv
import json
import re
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from unittest import mock

import pytest
import yaml
from lightning_fabric.loggers import CSVLogger

from robust_training.training.log import read_log
from tests.helpers.commands import ROOT, page_data, tool, train
from wsol.experiments.train_classifier import make_parser


def test_a_mistake_on_the_shell_shows_no_traceback(tmp_path):
    command = [sys.executable, ROOT / "tools" / "train.py", "--epocs", "3"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: unrecognized option --epocs; did you mean epochs")
    assert result.stderr.count("\n") == 1


def test_train_localize_evaluate(run, toy, tmp_path):
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "last.ckpt", "best", "log.csv"}
    options = ("--threshold", 0.2, "--report", tmp_path / "r", "--all")
    status, text, error = tool("evaluate.py", run, *options)
    assert status == 0, error
    assert text.splitlines()[-2].startswith("art: The gradient map ")
    assert "art: caution: The threshold was chosen by" in text
    metrics = json.loads((run / "metrics.json").read_text())
    policies = {(row["heatmap"], row["policy"]) for row in metrics["localization"]}
    maps = ("gradient", "refined gradient", "cam", "centred box", "refined centred box")
    policies.add(("cam", "unboxed"))  # its map of one cell may have no segment
    assert policies == {
        (m, p) for m in maps for p in ("val", "fixed:0.2", "unboxed", "oracle", "reference")
    }
    assert metrics["images"] == 20
    rows = len(metrics["localization"])
    assert text.count("| art |") == rows + 3 + 5 + 5 + 1
    lines = (run / "images.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 * 20
    assert {p.name for p in (run / "coco").iterdir()} == {
        "truth.json",
        *(f"{name.replace(' ', '_')}.json" for name in maps),
    }
    for page in (run / "report.html", tmp_path / "r"):
        data = page_data(page)
        assert [each["heatmap"] for each in data["maps"]] == [m for m in maps if m != "centred box"]
        assert [len(image["views"]) for image in data["images"]] == [4] * 20

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
    assert "class_path: null" in (run / "config.yaml").read_text()
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


def test_a_training_ends_with_its_accuracy_its_time_and_the_next_command(toy, tmp_path):
    fast = ("--epochs", 2, "--model.name", "test_resnet", "--objective", "Standard")
    for selection in ("last", "val_accuracy"):
        output = tmp_path / selection
        own = ("--data.root", toy, "--output", output, "--selection", selection)
        status, text, error = train(*own, *fast)
        assert status == 0, error
        rows = read_log(output)
        last = selection == "last" or rows[1]["val_accuracy"] >= rows[0]["val_accuracy"]
        epoch = 2 if last else 1
        accuracy = f"{rows[epoch - 1]['val_accuracy']:.1%}"
        assert f"validation accuracy {accuracy} after epoch {epoch} of 2" in text
        assert re.search(r", \d:\d\d:\d\d in all\n", text)
        assert re.search(rf"\nnext: python \S*tools/evaluate.py {output}\n$", text)


def test_loggers_get_what_the_log_has(toy, tmp_path):
    output = tmp_path / "run"
    small = ("--model.name", "test_resnet", "--objective", "Standard")
    own = ("--data.root", toy, "--output", output, *small)
    status, _, error = train(*own, "--logger", "csv", "tensorboard")
    assert status == 0, error
    (table,) = (output / "csv").rglob("metrics.csv")
    with open(table) as file:
        (row,) = csv.DictReader(file)
    assert {k: float(v) for k, v in row.items() if k != "step"} == read_log(output)[0]
    assert row["step"] == "1"
    assert list((output / "tensorboard_logger").rglob("events.*"))
    assert yaml.safe_load((output / "config.yaml").read_text())["logger"] == ["csv", "tensorboard"]
    with mock.patch.dict(sys.modules, {"wandb": None, "pytorch_lightning": None}):
        status, _, error = train(*own[:2], "--output", tmp_path / "no", *small, "--logger", "wandb")
    assert status == 2
    assert error == "error: --logger wandb needs more packages: pip install 'wsol[wandb]'"
    assert not (tmp_path / "no").exists()


def test_weights_and_biases_gets_the_log_through_lightnings_logger(toy, tmp_path, monkeypatch):
    """Stand-ins take the place of the optional packages."""
    rows = []

    class WandbLogger(CSVLogger):
        def __init__(self, name: str, save_dir: str, project: str) -> None:
            assert (name, project) == ("run", "wsol")
            super().__init__(save_dir)

        def log_metrics(self, metrics, step):
            rows.append((step, dict(metrics)))

    WandbLogger.__module__ = "pytorch_lightning.loggers"
    for name in ("wandb", "pytorch_lightning", "pytorch_lightning.loggers"):
        module = ModuleType(name)
        module.__spec__, module.WandbLogger = ModuleSpec(name, None), WandbLogger
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["pytorch_lightning"].loggers = module
    own = ("--data.root", toy, "--output", tmp_path / "run", "--model.name", "test_resnet")
    status, _, error = train(*own, "--objective", "Standard", "--logger", "wandb")
    assert status == 0, error
    assert rows == [(1, read_log(tmp_path / "run")[0])]


def test_a_class_that_a_model_does_not_have_is_refused_before_the_work(run, toy, tmp_path):
    """The names that contain the word are suggested."""
    images = ("localize.py", run, toy / "images", "--output", tmp_path / "boxes")
    status, _, error = tool(*images, "--label", "finch")
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert "the model has no class 'finch'; did you mean " in error
    assert "Red_Finch" in error
    status, _, error = tool(*images, "--label", "zzz")
    assert "the model has no class 'zzz'; there are " in error


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
        (("train.py", "--objective.wieght", 3), "did you mean weight?"),
        (("train.py", "--objective.weight", "three"), "Got value: three"),
        (("train.py", "--objective.weight", -1), "weight of ART must be 0 or more"),
        (("train.py", "--objective", "ARTT"), "did you mean ART?"),
        (("train.py", "--schedule.warmup_epoch", 1), "did you mean warmup_epochs?"),
        (("train.py", "--model.name", "resnet5O"), "did you mean resnet50"),
        (("train.py", "--model.log_gradient.bits", 1), "bits of LogGradient must be 2 to 8"),
        (("train.py", "--model.log_gradient", "{bts: 3}"), "did you mean bits?"),
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


@pytest.fixture(scope="module")
def parser():
    """The parser of train.py. Making it takes longer than its use."""
    return make_parser()


@pytest.mark.parametrize(
    "config", sorted((ROOT / "configs").glob("*_*.yaml")), ids=lambda p: p.name
)
def test_every_config_parses_and_says_how_it_is_used(config, parser):
    head = config.read_text().split("\n\n")[0]
    assert f"configs/{config.name}" in head
    assert "# Expected: " in head
    assert "# Time: " in head
    assert not {"EXPECTED", "TIME", "TODO"} & set(re.findall(r"[A-Z]+", head))
    settings = parser.parse_args(["--config", str(config), "--data.root", "d", "--output", "o"])
    assert settings.objective.class_path.startswith("robust_training.objectives.")


@pytest.mark.parametrize(
    "config", sorted((ROOT / "configs" / "methods").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_method_is_one_short_file(config, parser):
    text = config.read_text()
    assert text.startswith("# ")
    assert {"objective"} <= yaml.safe_load(text).keys() <= {"objective", "balance"}
    assert len(text.splitlines()) < 25
    base = ("--config", ROOT / "configs" / "toy_standard.yaml", "--config", config)
    own = ("--data.root", "d", "--output", "o")
    settings = parser.parse_args([str(each) for each in (*base, *own)])
    assert "dict_kwargs" not in parser.dump(settings)


@pytest.mark.parametrize("name", ["toy_art", "cub10_mobilenetv2_art"])
def test_small_configurations_of_art_have_its_light_form(name):
    """With these settings ART's term falls in a short run (docs/experiments)."""
    light, own = (
        yaml.safe_load((ROOT / "configs" / f"{each}.yaml").read_text())
        for each in ("methods/art_light", name)
    )
    assert {key: own[key] for key in light} == light


def test_benchmark_compares_training_steps(tmp_path):
    small = ("--model", "resnet10t", "--size", "32", "--batch", "2", "--repeats", "1")
    table = tmp_path / "steps.json"
    status, text, error = tool("benchmark.py", "train", *small, "--output", table)
    assert status == 0, error
    rows = {row["objective"]: row for row in json.loads(table.read_text())}
    assert rows["Standard"]["ratio"] == 1
    assert rows["ART exact"]["ratio"] > rows["PGD 3 steps"]["ratio"] > 1.5
    assert all(row["memory_mb"] > 0 for row in rows.values())
    assert "| ART fast |" in text
    status, _, error = tool("benchmark.py", "train", *small, "--objectives", "[Magic]")
    assert status == 2
    assert "ART exact" in error
