"""Draw, download, crop or check a data set.

`prepare_data.py toy ROOT` draws the toy birds. `prepare_data.py cub ROOT` downloads CUB-200-2011
(1.2 GB, for non-commercial research and education) and its masks, or takes local archives.
`prepare_data.py crop ROOT --boxes FILE --output DIR` crops images to boxes that localize.py found.
`prepare_data.py verify ROOT` checks a data set in any layout.
"""

from collections.abc import Callable
from pathlib import Path

from wsol.cli.parser import Parser
from wsol.cli.program import program


def toy() -> Callable:
    from wsol.data.toy_birds.writing import write_toy_birds

    return write_toy_birds


def crop() -> Callable:
    from wsol.annotations.crops import write_crops

    return write_crops


def verify() -> Callable:
    from wsol.annotations.verification import verify_data_set

    return verify_data_set


def cub(
    root: str, *, archive: str | None = None, masks_archive: str | None = None, masks: bool = True
) -> Path:
    """Download and unpack CUB-200-2011.

    Args:
        archive: Local CUB_200_2011.tgz, instead of the download.
        masks_archive: Local segmentations.tgz, instead of the download.
        masks: Also the segmentation masks.
    """
    from wsol.data.download import CUB_MASKS, prepare_cub

    return prepare_cub(
        root,
        masks=CUB_MASKS if masks else None,
        images_archive=archive,
        masks_archive=masks_archive,
    )


_MADE = "the data set is in {}"
_KINDS: dict[str, tuple[Callable[[], Callable], str]] = {
    "toy": (toy, _MADE),
    "cub": (lambda: cub, _MADE),
    "crop": (crop, _MADE),
    "verify": (verify, "{}"),
}


def main(arguments: list[str]) -> None:
    kind = arguments[0] if arguments else ""
    if kind not in _KINDS:
        parser = Parser(description=__doc__)
        parser.add_argument("data", choices=list(_KINDS), help="each has --help")
        parser.parse_args(arguments[:1])
    load, sentence = _KINDS[kind]
    prepare = load()
    parser = Parser(prog=f"{program()} {kind}", description=prepare.__doc__.splitlines()[0])
    parser.add_argument(
        "root", help="folder in which CUB_200_2011 is made, or the data set to crop or to check"
    )
    parser.add_function_arguments(prepare, skip={"root"})
    print(sentence.format(prepare(**vars(parser.parse_args(arguments[1:])))))
