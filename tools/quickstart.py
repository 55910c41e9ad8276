"""From nothing to boxes in minutes: `python tools/quickstart.py` (or `make quickstart`).

Draws the toy birds, trains the same small network with Standard and with ART, scores both beside
class activation maps and the centred box, localizes a few images, and writes a page of pictures.
Each step is an ordinary command, printed before it runs.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from wsol.cli import Parser, run

_ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = Parser(prog="quickstart.py", description=__doc__)
    parser.add_argument("--output", type=str, default="runs/quickstart")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    output = Path(settings.output)
    if output.exists():
        raise ValueError(f"{output} already exists; remove it or choose another --output")
    started = time.perf_counter()
    data = output / "data"
    _call("prepare_data.py", "toy", data, "--images", "1500")
    runs = []
    for method in ("standard", "art"):
        runs.append(output / method)
        _call(
            "train.py",
            *("--config", _ROOT / "configs" / f"toy_{method}.yaml"),
            *("--data.root", data, "--output", runs[-1], "--seed", settings.seed),
        )
    _call("evaluate.py", *runs, "--report", output / "report.html")
    images = sorted((data / "CUB_200_2011" / "images").glob("*/*_0001.jpg"))
    _call("localize.py", runs[-1], *images, "--output", output / "boxes")
    print(f"done in {time.perf_counter() - started:.0f} s; open {output / 'report.html'}")


def _call(tool: str, *arguments: object) -> None:
    command = [f"tools/{tool}", *map(str, arguments)]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    status = subprocess.call([sys.executable, str(_ROOT / "tools" / tool), *command[1:]])
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    run(main)
