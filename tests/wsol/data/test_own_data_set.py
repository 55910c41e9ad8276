"""A data set of one's own by `data.class_path`, and configs that earlier versions wrote."""

import json
import sys

import pytest
import yaml

from tests.helpers.commands import tool, train
from tests.helpers.folders import write_image
from wsol.data.dataset import Example, ImageDataset
from wsol.data.loaders import DataConfig, read_data_config

NAMED_FILES = '''
from pathlib import Path

from wsol.data.dataset import Example, ImageDataset


class NamedFiles(ImageDataset):
    """All images in one folder, named by their class; every third is for testing."""

    def __init__(self, root, split, *, transform=None, val_fraction=0.0):
        files = sorted(Path(root).glob("*.png"))
        classes = sorted({file.name.split("_")[0] for file in files})
        images = [
            Example(i, f.name, f, classes.index(f.name.split("_")[0]), boxes=((2, 2, 30, 20),))
            for i, f in enumerate(files)
        ]
        options = {"transform": transform, "val_fraction": val_fraction}
        train = [image for image in images if image.identity % 3]
        super().__init__(root, split, classes, train=train, test=images[::3], **options)


class Other:
    pass


def function(root, split, *, transform=None, val_fraction=0.0):
    raise AssertionError("it was called")
'''


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A folder that no layout of ours fits, and a module that reads it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "named_files_test.py").write_text(NAMED_FILES)
    for name in ("cat", "dog"):
        for number in range(15):
            write_image(folder / "pets" / f"{name}_{number:02d}.png", (40, 24))
    sys.path.insert(0, str(folder))
    yield folder / "pets"
    sys.path.remove(str(folder))
    sys.modules.pop("named_files_test", None)


@pytest.fixture(scope="module")
def trained(pets, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "own"
    options = ("--data.class_path", "named_files_test.NamedFiles", "--data.val_fraction", 0.2)
    options = (*options, "--data.batch_size", 8, "--model.name", "test_resnet")
    status, _, error = train("--data.root", pets, "--output", run, *options)
    assert status == 0, error
    return run


def test_a_class_of_ones_own_is_trained_resumed_scored_and_localized(pets, trained, tmp_path):
    settings = yaml.safe_load((trained / "config.yaml").read_text())["data"]
    assert settings["class_path"] == "named_files_test.NamedFiles"
    config = read_data_config(trained)
    assert [len(config.dataset(split)) for split in ("train", "val", "test")] == [16, 4, 10]
    assert config.as_dict() == settings
    resume = ("--config", trained / "config.yaml", "--resume", "--epochs", 2)
    status, _, error = tool("train.py", *resume)
    assert status == 0, error
    status, _, error = tool("train.py", *resume, "--data.class_path", "null")
    assert status == 2
    assert "holds another run: data.class_path: named_files_test.NamedFiles -> None" in error
    status, _, error = tool("evaluate.py", trained, "--v2", "false")
    assert status == 0, error
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["images"] == 10
    assert metrics["data"] == settings | {"batch_size": 32}
    found = tmp_path / "found"
    status, _, error = tool("localize.py", trained, pets, "--output", found)
    assert status == 0, error
    assert len((found / "boxes.csv").read_text().splitlines()) == 31


@pytest.mark.parametrize("name", ["Other", "function", "nowhere", "Path"])
def test_only_a_class_of_data_sets_is_taken(pets, tmp_path, name):
    options = ("--data.root", pets, "--output", tmp_path / "run")
    for given in (name, f"named_files_test.{name}"):
        status, _, error = train(*options, "--data.class_path", given)
        assert (status, error[:7], "data.class_path" in error) == (2, "error: ", True), error
    config = {"data": {"root": str(pets), "class_path": f"named_files_test.{name}"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"config.yaml is not the config of a run: .*class_path"):
        read_data_config(tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_boxes_is_scored_by_accuracy_alone(pets, tmp_path):
    """The note names the class, which alone can say where objects are."""
    from wsol.evaluation.split_selection import select_splits

    class Boxless(ImageDataset):
        def __init__(self, root, split, **options):
            images = [Example(i, f.name, f, i % 2) for i, f in enumerate(sorted(root.iterdir()))]
            super().__init__(root, split, ["a", "b"], train=images, test=images, **options)

    splits = select_splits(DataConfig(pets, 32, num_workers=0, class_path=Boxless), None)
    assert (splits.boxed, len(splits.test.truth)) == (False, 30)
    assert splits.notes[0].endswith("boxes of its examples from Boxless")


def test_a_config_of_an_earlier_version_is_read_and_resumed(pets, trained, tmp_path):
    settings = yaml.safe_load((trained / "config.yaml").read_text())
    expected = read_data_config(trained)
    data = settings["data"]
    data["val_share"], data["cache"] = data.pop("val_fraction"), "~/.cache/wsol"
    settings["model"]["front"] = settings["model"].pop("log_gradient")
    settings["compile"] = False
    (trained / "config.yaml").write_text(yaml.safe_dump(settings))
    assert read_data_config(trained) == expected
    now = ("--data.root", pets, "--output", trained, "--data.batch_size", 8)
    now = (*now, "--data.class_path", "named_files_test.NamedFiles", "--model.name", "test_resnet")
    status, _, error = train(*now, "--resume", "--data.val_fraction", 0.3)
    assert (status, "val_fraction: 0.2 -> 0.3" in error) == (2, True), error
    status, _, error = train(*now, "--resume", "--data.val_fraction", 0.2, "--epochs", 2)
    assert status == 0, error


def test_a_config_file_with_a_class_path_alone_says_what_to_add(pets, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("data: {class_path: named_files_test.NamedFiles}")
    options = ("--data.root", pets, "--output", tmp_path / "run")
    status, _, error = train("--config", file, *options)
    assert (status, "own.yaml: data: give root beside class_path" in error) == (2, True), error
