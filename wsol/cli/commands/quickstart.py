"""Train, score and localize on toy data in minutes: `python tools/quickstart.py`.

Draws the toy birds, trains a small network with Standard, trains it further with Standard and with
ART for the same number of epochs, scores both beside class activation maps and the centred box,
localizes a few images, and writes an HTML report. Each step is an ordinary command, which is
printed before it runs.
"""

import itertools
import subprocess
import time
from pathlib import Path

from wsol.cli.parser import Parser
from wsol.cli.program import other, process_words


def main(arguments: list[str]) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--output", type=str, default=None, help="default: a new runs/quickstart-N")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    output = Path(settings.output) if settings.output else _new_folder()
    if output.exists():
        raise ValueError(f"{output} already exists; choose another --output")
    started = time.perf_counter()
    data = output / "data"
    _call("prepare", "toy", data)
    common = ("--data.root", data, "--seed", settings.seed)
    start, standard, art = (output / name for name in ("start", "standard", "art"))
    _train("toy_standard", *common, "--output", start)
    weights = ("--model.weights", start / "best" / "model.safetensors")
    same_budget = ("--epochs", 5, "--optimizer.init_args.lr", 0.0005)  # as toy_art.yaml has it
    _train("toy_standard", *common, *weights, *same_budget, "--output", standard)
    _train("toy_art", *common, *weights, "--output", art)
    _call("evaluate", standard, art, "--report", output / "report.html")
    images = sorted((data / "CUB_200_2011" / "images").glob("*/*_0001.jpg"))
    _call("localize", art, *images, "--output", output / "boxes")
    print(f"done in {time.perf_counter() - started:.0f} s; open {output / 'report.html'}")


def _new_folder() -> Path:
    names = (Path("runs", f"quickstart-{number}") for number in itertools.count(1))
    return next(folder for folder in names if not folder.exists())


def _train(config: str, *arguments: object) -> None:
    _call("train", "--config", config, *arguments)


def _call(command: str, *arguments: object) -> None:
    print(f"\n$ {other(command, *arguments)}", flush=True)
    status = subprocess.call(process_words(command, arguments, alike=True))
    if status:
        raise SystemExit(status)
