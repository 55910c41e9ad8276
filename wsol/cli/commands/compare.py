"""Trains several configurations with equal budgets and seeds, and compares them:

    compare.py configs/methods/*.yaml --base configs/toy_standard.yaml --epochs 5 --seeds 0 1 2
        --output DIR -- --data.root DATA

Options after `--` go to every run of train.py. Each run is a folder DIR/<config>/seed<n>, trained
by train.py and scored by evaluate.py. Finished runs are not repeated, and interrupted ones
continue. Writes comparison.md, comparison.csv, accuracy_gt_known.png, accuracy_robustness.png
(where robustness was measured) and maps.png. Times are multiples of the first configuration's.
`--methods gradient` scores the named heatmaps and their baselines only.

`--curves trade_off/curves` adds methods with several settings each, such as radii of PGD and
weights of ART. A line joins the points of a curve in both pictures. `--points pgd_1 trades_1`
takes these points only, for example to train them with more seeds.
"""

from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from wsol.cli.config_files import find_config
from wsol.cli.parser import DEVICE, METHODS, Parser, output_folder, split_options
from wsol.cli.program import typed


def main(arguments: list[str]) -> None:
    own, options = split_options(arguments)
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("configs", nargs="*", help="names or YAML files, one per method")
    add("--curves", type=str, help="name or YAML file of methods with several settings")
    add("--points", nargs="+", help="<curve>_<point>; default: all")
    add("--base", nargs="*", default=[], help="what is read before each of them")
    add("--output", type=str, required=True, help="folder for runs and results")
    add("--seeds", type=NonNegativeInt, nargs="+", default=[0])
    add("--epochs", type=PositiveInt | None, help="of every run")
    add(
        "--minutes",
        type=PositiveFloat | None,
        help="instead: as many epochs of every method as fit, by the time of a trial of one",
    )
    add("--robustness", type=str, default="false", help="as evaluate.py's: true, or a YAML file")
    add("--methods", nargs="+", default=[], help=f"to score; {METHODS}")
    add("--device", type=str, default=DEVICE, help="for scoring")
    add("--jobs", type=PositiveInt, default=1, help="runs at once")
    add("--images", type=PositiveInt, default=8, help="on the sheet of maps")
    settings = parser.parse_args(own)
    if settings.robustness not in ("true", "false"):
        settings.robustness = str(find_config(settings.robustness))
    configs = {Path(name).stem: find_config(name) for name in settings.configs}
    if len(configs) < len(settings.configs):
        raise ValueError("two configurations have the same file name")
    if not configs and settings.curves is None:
        raise ValueError("name the configurations to compare, or give --curves")
    if settings.points is not None and settings.curves is None:
        raise ValueError("--points are points of curves: give --curves, too")
    curves = None if settings.curves is None else find_config(settings.curves)
    output = output_folder(settings.output)

    # these import PyTorch
    from wsol.experiments.compare_methods import Comparison, Method, read_curves, write_comparison

    methods = {name: Method(file) for name, file in configs.items()}
    points = {} if curves is None else read_curves(curves, settings.points)
    shared = methods.keys() & points.keys()
    if shared:
        raise ValueError(f"a configuration and a point of a curve are both called {min(shared)}")
    methods |= points
    comparison = Comparison(
        output,
        methods,
        list(map(find_config, settings.base)),
        options,
        settings.device,
        settings.robustness,
        settings.jobs,
        settings.methods,
    )
    runs = comparison.run(settings.seeds, epochs=settings.epochs, minutes=settings.minutes)
    table = write_comparison(output, runs, typed(), settings.images)
    print(f"{table}\n\nthe comparison is in {output}")
