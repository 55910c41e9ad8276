"""A run as programs: `python tools/export.py RUN [--output DIR] [--formats pt2 onnx]`.

Writes localizer.onnx (for onnxruntime alone) and localizer.pt2 (for PyTorch alone): images in [0,1]
-> logits and heatmaps. Each is compared with the run's own localizer first; where one cannot be
written the other still is (exit status 1). Completes the model card, best/README.md.
`--push_to_hub USER/NAME` uploads all of it. `export.py benchmark` times programs (see its --help).
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from robust_training.models.classifier import Classifier, create_model
from wsol.cli.parser import Parser, run
from wsol.localizer.export import export_program, smooth_images, write_program
from wsol.localizer.exported_program import is_program
from wsol.localizer.hub import local_folder, push
from wsol.localizer.localizer import Localizer
from wsol.localizer.saved_models import model_folder
from wsol.report.model_card import complete_card, shared_files

Format = Literal["pt2", "onnx"]


def export(arguments: list[str]) -> int:
    parser = Parser(prog="export.py", description=__doc__)
    parser.add_argument("run", type=str, help="run, model folder or hub id")
    parser.add_argument("--output", type=str | None, default=None, help="default: the run's folder")
    parser.add_argument("--formats", type=Format, nargs="*", default=["pt2", "onnx"])
    parser.add_argument(
        "--licence", type=str | None, default=None, help="of the weights, an SPDX id"
    )
    parser.add_argument("--push_to_hub", type=str | None, default=None, help="USER/NAME")
    settings = parser.parse_args(arguments)
    source = local_folder(settings.run)
    if is_program(source):
        raise ValueError(f"{source} is an exported localizer already")
    output = Path(settings.output or source)
    localizer = Localizer.load(source)
    if not isinstance(localizer, Localizer):
        raise ValueError(f"{source} is a detector's: localizers with heatmaps alone are exported")
    if (source / "config.yaml").is_file():
        complete_card(source, licence=settings.licence)
        print(f"model card: {model_folder(source) / 'README.md'}")
    program, failed = export_program(localizer.model), 0
    for kind in settings.formats:
        file = output / f"localizer.{kind}"
        try:
            difference = write_program(program, localizer, file)
        except ValueError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        size = file.stat().st_size / 2**20
        print(f"{file}: {size:.1f} MiB, heatmaps differ by at most {difference:.1e}")
    if settings.push_to_hub:
        print(f"pushed: {push(shared_files(source, output), settings.push_to_hub)}")
    return 1 if failed else 0


def benchmark(arguments: list[str]) -> None:
    parser = Parser(
        prog="export.py benchmark",
        description="Images a second of exported localizers and of the eager one they came from, "
        "heatmaps included, with random weights. Medians of alternating calls; ratios in one run.",
    )
    parser.add_argument(
        "--models",
        type=str,
        nargs="+",
        default=["resnet50", "mobilenetv2_100", "vit_tiny_patch16_224"],
    )
    parser.add_argument("--format", type=Format, default="onnx")
    parser.add_argument("--size", type=PositiveInt, default=224, help="of the images, in pixels")
    parser.add_argument("--batches", type=PositiveInt, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=PositiveInt, default=7)
    parser.add_argument("--threads", type=PositiveInt, default=1)
    settings = parser.parse_args(arguments)
    torch.set_num_threads(settings.threads)
    print(f"| model | batch | eager, images/s | .{settings.format}, images/s | ratio |")
    print("|---|---:|---:|---:|---:|")
    for name in settings.models:
        localizer = Localizer(_random_model(name, settings.size))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"localizer.{settings.format}")
            write_program(export_program(localizer.model), localizer, file)
            exported = Localizer.load(file)
        for count in settings.batches:
            images = smooth_images(count, settings.size)
            slow, fast = _median_seconds([localizer, exported], images, settings.repeats)
            speeds = f"{count / slow:.2f} | {count / fast:.2f} | {slow / fast:.2f}x"
            print(f"| {name} | {count} | {speeds} |", flush=True)


def _random_model(name: str, side: int) -> Classifier:
    torch.manual_seed(0)
    model = create_model(name, 200, image_size=side).eval()
    for parameter in model.backbone.get_classifier().parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # a head of zeros has no gradient
    return model


def _median_seconds(localizers: list[Localizer], images: Tensor, repeats: int) -> list[float]:
    seconds: list[list[float]] = [[] for _ in localizers]
    for _ in range(repeats + 1):
        for localizer, times in zip(localizers, seconds, strict=True):
            image = images.clone()  # a program remembers the last images by identity
            start = time.perf_counter()
            with torch.no_grad():
                label = localizer.model(image).argmax(dim=1)
            localizer.method(localizer.model, image, label)
            times.append(time.perf_counter() - start)
    return [float(np.median(times[1:])) for times in seconds]


def main() -> int | None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["benchmark"]:
        return benchmark(arguments[1:])
    return export(arguments)


if __name__ == "__main__":
    run(main)
