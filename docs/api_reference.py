"""Writes a reference of the public names from their docstrings: python api_reference.py FOLDER"""

import sys
from pathlib import Path

import pdoc

import robust_training
import wsol

# the modules of the base classes that docs/extending.md names
EXTENDED = (
    "robust_training.attacks.map_attack",
    "robust_training.attribution.explanation",
    "wsol.data.dataset",
    "wsol.detectors.base",
    "wsol.heatmaps.heatmap",
)


def write_reference(folder: Path) -> None:
    """Writes one page for each package and each module in `EXTENDED`."""
    for package in (robust_training, wsol):
        for name in package.__all__:  # pdoc does not see names that are loaded when first used
            setattr(package, name, getattr(package, name))
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("robust_training", "wsol", *EXTENDED, output_directory=folder)


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]))
