"""Measure the speed of this project's main steps:

    benchmark.py boxes                    boxes of a heatmap, compared with OpenCV at each threshold
    benchmark.py scoremaps --metadata DIR reading and scoring synthetic maps of a split
    benchmark.py train                    a training step of each objective
    benchmark.py attack                   an attack on maps, in batches and one image at a time
    benchmark.py loader --data.root DIR   loading training images

Times are medians, and ratios compare times of the same run. Let nothing else run meanwhile.
"""

from wsol.benchmarks.attack import time_attack
from wsol.benchmarks.boxes import time_boxes
from wsol.benchmarks.loader import time_loader
from wsol.benchmarks.scoremaps import time_scoremaps
from wsol.benchmarks.timing import report
from wsol.benchmarks.training_step import time_training_steps
from wsol.cli.parser import Parser

_COMMANDS = {
    "boxes": time_boxes,
    "scoremaps": time_scoremaps,
    "train": time_training_steps,
    "attack": time_attack,
    "loader": time_loader,
}


def main(arguments: list[str]) -> None:
    parser = Parser(description=__doc__)
    commands = parser.add_subcommands(dest="command")
    for name, measure in _COMMANDS.items():
        command = Parser(description=measure.__doc__.splitlines()[0])
        command.add_argument("--output", type=str, help="JSON file")
        command.add_function_arguments(measure)
        commands.add_subcommand(name, command)
    settings = parser.instantiate(parser.parse_args(arguments))
    given = vars(settings[settings.command])
    output = given.pop("output")
    report(_COMMANDS[settings.command](**given), output)
