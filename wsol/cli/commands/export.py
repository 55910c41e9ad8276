"""A run as programs: `python tools/export.py RUN [--output DIR] [--formats pt2 onnx]`.

Writes localizer.onnx (for onnxruntime alone) and localizer.pt2 (for PyTorch alone), which take
images in [0,1] and return logits and heatmaps. Each is compared with the run's own localizer first;
if one cannot be written the other still is (exit status 1). Completes the model card,
best/README.md. `--browser` also writes localizer.html, a page that finds boxes in a browser.
`--push_to_hub USER/NAME` uploads all of it. `export.py benchmark` times programs (see its --help).
"""

import sys
from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveInt

from wsol.cli.parser import Parser
from wsol.cli.program import program

Format = Literal["pt2", "onnx"]


def export(arguments: list[str]) -> int:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("run", type=str, help="run, model folder or hub id")
    add("--output", type=str, help="default: the run's folder")
    add("--formats", type=Format, nargs="*", default=["pt2", "onnx"])
    add("--licence", type=str, help="SPDX id of the licence of the weights")
    add("--push_to_hub", type=str, help="USER/NAME")
    add("--browser", action="store_true", help="write localizer.html, too")
    add(
        "--onnxruntime_web",
        type=str,
        help="for --browser: folder or .tgz of the npm package; default: npm fetches it",
    )
    settings = parser.parse_args(arguments)
    if settings.browser and "onnx" not in settings.formats:
        raise ValueError("--browser needs the .onnx: add onnx to --formats")

    from wsol.detectors.saving import is_detector
    from wsol.localizer.browser.page import read_runtime, write_page
    from wsol.localizer.export import export_program, write_program
    from wsol.localizer.exported_program import is_program
    from wsol.localizer.hub import local_folder, push
    from wsol.localizer.localizer import Localizer
    from wsol.localizer.saved_models import model_folder
    from wsol.report.model_card import complete_card, shared_files

    source = local_folder(settings.run)
    if is_program(source):
        raise ValueError(f"{source} is an exported localizer already")
    output = Path(settings.output or source)
    if is_detector(source):
        raise ValueError(f"{source} is a detector: only localizers with heatmaps are exported")
    localizer = Localizer.load(source, "gradient")  # the only map that programs compute
    if (source / "config.yaml").is_file():
        complete_card(source, licence=settings.licence)
        print(f"model card: {model_folder(source) / 'README.md'}")
    runtime = read_runtime(settings.onnxruntime_web) if settings.browser else None
    exported, failed = export_program(localizer.model), 0
    for suffix in settings.formats:
        file = output / f"localizer.{suffix}"
        try:
            difference = write_program(exported, localizer, file)
        except ValueError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        size = file.stat().st_size / 2**20
        print(f"{file}: {size:.1f} MiB, heatmaps differ by at most {difference:.1e}")
        if runtime and suffix == "onnx":
            page = file.with_suffix(".html")
            write_page(file, runtime, page)
            print(f"{page}: {page.stat().st_size / 2**20:.1f} MiB; open it in a browser")
    if settings.push_to_hub:
        print(f"pushed: {push(shared_files(source, output), settings.push_to_hub)}")
    return 1 if failed else 0


def benchmark(arguments: list[str]) -> None:
    parser = Parser(
        prog=f"{program()} benchmark",
        description="Images per second of exported localizers and of the eager ones they came "
        "from, heatmaps included, with random weights. Medians of alternating calls in one run.",
    )
    parser.add_argument(
        "--models",
        type=str,
        nargs="+",
        default=["resnet50", "mobilenetv2_100", "vit_tiny_patch16_224"],
    )
    parser.add_argument("--format", type=Format, default="onnx")
    parser.add_argument(
        "--size", type=PositiveInt, default=224, help="side of the images, in pixels"
    )
    parser.add_argument("--batches", type=PositiveInt, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=PositiveInt, default=7)
    parser.add_argument("--threads", type=PositiveInt, default=1)
    settings = parser.parse_args(arguments)

    import torch

    from wsol.benchmarks.exported_programs import program_speeds
    from wsol.benchmarks.timing import report

    torch.set_num_threads(settings.threads)
    speeds = program_speeds(
        settings.models, settings.format, settings.size, settings.batches, settings.repeats
    )
    report(list(speeds), None)


def main(arguments: list[str]) -> int | None:
    if arguments[:1] == ["benchmark"]:
        return benchmark(arguments[1:])
    return export(arguments)
