"""A folder in which the documentation's commands run: small data, small networks, short training.

The words of a command are those of the document; `SMALL` puts some behind them. A tool that has no
line in it cannot be run, so that a new command does not slip in untested.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from tests.helpers.birds import birds, planted, write_published
from tests.helpers.commands import ROOT, starting_nothing, tool
from wsol import CUB200
from wsol.cli.config_files import find_config
from wsol.cli.parser import Parser, split_options
from wsol.cli.program import COMMANDS
from wsol.experiments.compare_methods import read_curves

_TRAINING = (
    "--epochs 1 --data.image_size 32 --data.resize 36 --data.batch_size 4 --data.num_workers 0 "
    "--model.name test_resnet --model.last_stride null --fabric.devices 1"
)
# what stands behind the words of a command; of those with options for train.py, before their `--`
SMALL = {
    "train.py": f"{_TRAINING} --model.pretrained false",
    "evaluate.py": "",
    "evaluate.py scoremaps": "--workers 0",
    "evaluate.py boxes": "",
    "localize.py": "",
    "demo.py": "",
    "export.py": "",
    "export.py benchmark": "--models test_resnet --size 32 --batches 1 --repeats 1",
    "compare.py": "--epochs 1 --seeds 0 --images 2",
    "interpret.py": "--seeds 0 --fractions 0.5 --modes roar --attributions gradient",
    "train_detector.py": "--training.epochs 1 --batch_size 4",
    "prepare_data.py toy": "--images 24 --size 40 --species 2",
    "prepare_data.py cub": "",
    "prepare_data.py crop": "",
    "prepare_data.py verify": "",
    "benchmark.py boxes": "--size 16 --repeats 1",
    "benchmark.py scoremaps": "--size 16 --workers [1]",
    "benchmark.py loader": "--data.image_size 32 --data.batch_size 4 --data.num_workers 0",
    "benchmark.py train": "--size 32 --batch 2 --repeats 1 --model test_resnet",
    "benchmark.py attack": "--size 32 --images 2 --batch 2 --singles 0",
}
_PASSING_ON = {"compare.py", "interpret.py"}  # what stands after their `--` is train.py's
# what needs the network, several machines, or a shell of its own; tools parse it all the same
NOT_RUN = ("prepare_data.py cub", "--browser", "torchrun", "--push_to_hub", "USER/NAME", "timm/")
NOT_TOOLS = (
    "make api",
    "make demo",
    "wsol --help",
    "make install",
    "make quickstart",
    "make test",
    ". .venv/bin/activate",
)


class Parsed(BaseException):
    """A tool understood what it was given."""


def set_stage(folder: Path, data: Path) -> Path:
    """The repository's files, and stand-ins for what a reader has: photos, data, maps."""
    (folder / "tools").symlink_to(ROOT / "tools")
    shutil.copytree(ROOT / "configs", folder / "configs")
    protocol = folder / "configs" / "robustness.yaml"  # 50 x 100 passes are for another day
    text = protocol.read_text().replace("steps: 50", "steps: 2").replace("steps: 100", "steps: 2")
    protocol.write_text(text)
    attack = folder / "configs" / "autoattack.yaml"
    attack.write_text(attack.read_text().replace(", apgd-t", ""))  # the birds have two classes
    shutil.copy(ROOT / "docs" / "run_onnx.py", folder)
    for name in ("CUB10", "SEEN", "TOY", "DATA", "data/cub"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(data)
    pictures = sorted((data / "CUB_200_2011" / "images").glob("*/*_0001.jpg"))
    for name in ("photos", "my_photos"):
        (folder / name).mkdir()
        for picture in pictures:
            shutil.copy(picture, folder / name)
    shutil.copy(pictures[0], folder / "photo.jpg")
    _write_own_images(folder / "my_data", data)
    _write_maps(folder)
    return folder


def _write_own_images(folder: Path, data: Path) -> None:
    """Copy the images of a data set to a plain folder of classes, with true boxes in a table."""
    lines = ["image,x0,y0,x1,y1"]
    for split in ("train", "val", "test"):
        dataset = CUB200(data, split, val_fraction=0.1)
        for example, item in zip(dataset.examples, dataset, strict=True):
            place = folder / split / example.path.parent.name / example.path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(example.path, place)
            corners = (f"{value:g}" for value in item["box"].tolist())
            lines.append(",".join([str(place.relative_to(folder)), *corners]))
    (folder / "boxes.csv").write_text("\n".join(lines))


def _write_maps(folder: Path) -> None:
    """Write files of other programs: metadata, maps, predictions, boxes."""
    truth = birds([(2, 2, 10, 10), (8, 4, 18, 14)])
    for place in (folder / "metadata" / "CUB" / "test", folder / "METADATA"):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_published(place, truth)
    (folder / "maps").mkdir()
    for name, box in zip(truth.names, truth.boxes[:, 0].astype(int), strict=True):
        np.save(folder / "maps" / f"{name}.npy", planted(box))
    lines = [f"{name},{label},2" for name, label in zip(truth.names, truth.labels, strict=True)]
    (folder / "predictions.txt").write_text("\n".join(lines))
    box = {"bbox": [2, 2, 8, 8]}
    both = [{"image_id": number, "category_id": number, **box} for number in (1, 2)]
    (folder / "results.json").write_text(json.dumps([{**each, "score": 1} for each in both]))
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 20, "height": 16} for n in (1, 2)],
        "annotations": [{"id": number, **each} for number, each in enumerate(both)],
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
    }
    (folder / "truth.json").write_text(json.dumps(content))


def rule(words: list[str]) -> tuple[str, list[str]]:
    """The key in `SMALL` and the arguments of `python tools/...` or `wsol ...`.

    Raises:
        KeyError: no rule covers it.
    """
    program, script, *rest = words
    if program == "wsol" and script in COMMANDS:
        program, script = "python", f"tools/{COMMANDS[script].script}"
    name = script.removeprefix("tools/")
    if program != "python" or script == name:
        raise KeyError(f"no rule for {' '.join(words)}")
    longer = f"{name} {rest[0]}" if rest else name
    if longer in SMALL:
        return longer, rest
    if name not in SMALL:
        raise KeyError(f"no rule for {' '.join(words)}")
    return name, rest


def of_train(key: str, arguments: list[str]) -> list[list[str]]:
    """Arguments with which compare.py and interpret.py call train.py."""
    own, options = split_options(arguments)
    if key == "interpret.py":
        data = ["--data.root", "TOY"]  # the images that it makes
        return [["--config", own[own.index("--config") + 1], *data, *options]]
    if key == "compare.py":
        base = own[own.index("--base") + 1]
        files = list(itertools.takewhile(lambda word: not word.startswith("--"), own))
        if "--curves" in own:
            methods = read_curves(find_config(own[own.index("--curves") + 1])).values()
            files += sorted({str(method.config) for method in methods})
        return [["--config", base, "--config", file, *options] for file in files]
    return []


def small(key: str, arguments: list[str]) -> list[str]:
    """Arguments with which a command takes only seconds."""
    own, options = split_options(arguments)
    passed = ["--", *options, *_TRAINING.split()] if key in _PASSING_ON else []
    if key == "evaluate.py" and "--robustness" in own and "true" not in own:
        passed = ["--robustness.images", "2"]
    if "--curves" in own and "--points" not in own:
        own += ["--points", "standard_again"]
    return [*own, *SMALL[key].split(), *passed]


def parse(name: str, arguments: list[str], stage: Path) -> None:
    """Let a tool read a command line, and do nothing else; AssertionError with what it says."""
    whole = Parser.parse_args

    def parse_args(self, *given, **options):
        whole(self, *given, **options)
        raise Parsed

    with mock.patch.object(Parser, "parse_args", parse_args):
        try:
            _, _, error = tool(name, *arguments, cwd=stage)
        except Parsed:
            return
    raise AssertionError(f"{name} {' '.join(arguments)}: {error}")


def perform(name: str, arguments: list[str], stage: Path) -> None:
    """Run a tool, and in this process the commands that it runs."""

    with starting_nothing():
        status, text, error = tool(name, *arguments, cwd=stage)
    assert status == 0, f"{name} {' '.join(arguments)}: {error}\n{text[-2000:]}"


def perform_elsewhere(words: list[str], stage: Path) -> None:
    """Run a script that is no tool, in a process of its own."""
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=stage, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-2000:]}"


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Modules of `folder` are found, and forgotten afterwards."""
    before = set(sys.modules)
    with (
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
        mock.patch.dict(os.environ, {"PYTHONPATH": f"{folder}:{ROOT}"}),
    ):
        yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == folder:
            del sys.modules[name]
