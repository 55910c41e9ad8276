"""Train, score and localize on toy data in minutes: `python tools/quickstart.py`.

Draws the toy birds, trains a small network with Standard, trains it further with Standard, PGD and
ART for the same number of epochs, scores the maps of all three beside the centred box and under
attack, localizes a few test images, and writes an HTML report. Each step is an ordinary command,
which is printed before it runs.
"""

import itertools
import subprocess
import time
from pathlib import Path

from wsol.cli.parser import Parser
from wsol.cli.program import other, process_words

_DATA = ("--images", 2400, "--size", 64, "--test_fraction", 0.085, "--distractors", "[0,1]")
_NETWORK = ("--model.name", "test_resnet", "--channels_last", "true")
_RADIUS = 0.0157  # 4/255
_ATTACK = (
    *("--objective.init_args.attack.eps", _RADIUS),
    *("--objective.init_args.attack.step_size", _RADIUS),
    *("--objective.init_args.attack.steps", 1),
)


def main(arguments: list[str]) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--output", type=str, help="default: a new runs/quickstart-N")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    output = Path(settings.output) if settings.output else _new_folder()
    if output.exists():
        raise ValueError(f"{output} already exists; choose another --output")
    started = time.perf_counter()
    data = output / "data"
    _call("prepare", "toy", data, *_DATA)
    common = ("--data.root", data, "--data.val_fraction", 0.05, "--seed", settings.seed, *_NETWORK)
    start, standard, pgd, art = (output / name for name in ("start", "standard", "pgd", "art"))
    _train("toy_standard", *common, *_steps(7, 0.003), "--output", start)
    further = (*common, *_steps(2, 0.001), "--model.weights", start / "best" / "model.safetensors")
    _train("toy_standard", *further, "--output", standard)
    _train("toy_pgd", *further, *_ATTACK, "--output", pgd)
    _train("toy_standard", "--config", "methods/art_light", *further, "--output", art)
    scores = ("--methods", "gradient", "refined_gradient", "--robustness", "quickstart")
    _call("evaluate", standard, pgd, art, *scores, "--report", output / "report.html")
    images = data / "CUB_200_2011" / "images"
    _call("localize", pgd, *sorted(images.glob("*/*_0001.jpg")), "--output", output / "boxes")
    print(f"done in {time.perf_counter() - started:.0f} s; open {output / 'report.html'}")


def _new_folder() -> Path:
    names = (Path("runs", f"quickstart-{number}") for number in itertools.count(1))
    return next(folder for folder in names if not folder.exists())


def _train(config: str, *arguments: object) -> None:
    _call("train", "--config", config, *arguments)


def _steps(epochs: int, lr: float) -> tuple[object, ...]:
    return ("--epochs", epochs, "--optimizer.init_args.lr", lr)


def _call(command: str, *arguments: object) -> None:
    print(f"\n$ {other(command, *arguments)}", flush=True)
    status = subprocess.call(process_words(command, arguments, alike=True))
    if status:
        raise SystemExit(status)
