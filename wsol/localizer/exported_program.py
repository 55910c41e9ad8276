"""Exported localizers, `.onnx` and `.pt2`, in the place of a classifier and its heatmap method."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsol.heatmaps.heatmap import HeatmapMethod

Both = Callable[[Tensor], tuple[Tensor, Tensor]]  # images -> logits, heatmaps
METADATA = "metadata.json"  # inside a .pt2; an .onnx has properties of the same names


class Program(nn.Module):
    """Images (N,3,S,S) in [0,1] -> logits (N,C), by a file that `export` wrote. On the CPU.

    Attributes:
        image_size: S.
        class_names: One per class; numbers where the trained model had no names.
        threshold: Of its heatmaps, as a share of their maximum.
    """

    def __init__(self, both: Both, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self._both = both
        self.image_size = int(metadata["image_size"])
        self.class_names: list[str] = json.loads(metadata["class_names"])
        self.num_classes = len(self.class_names)
        self.threshold = float(metadata["threshold"])
        self.device = torch.device("cpu")
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N,C) and the predicted classes' heatmaps (N,S,S) in [0,1].

        One run gives both, so the last ones are kept for whoever asks for the logits first.
        """
        if self._last is None or self._last[0] is not image:
            self._last = (image, *self._both(image))
        return self._last[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.both(image)[0]


@dataclass(frozen=True)
class ProgramHeatmap(HeatmapMethod):
    """The heatmap that an exported localizer gives: the gradient map of the predicted class."""

    def __call__(self, model: Program, image: Tensor, label: Tensor) -> np.ndarray:
        logits, heatmaps = model.both(image)
        if not torch.equal(logits.argmax(dim=1), label):
            raise ValueError("an exported localizer has heatmaps of the predicted class alone")
        return heatmaps.double().numpy()


def is_program(file: str | os.PathLike) -> bool:
    return Path(file).suffix in _READERS


def open_program(
    file: str | os.PathLike,
    method: HeatmapMethod | str | None = None,
    threshold: float | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Program, HeatmapMethod, float]:
    """What a Localizer is made of; None is what is in the file.

    Raises:
        ValueError: another method or device than the file has, or as `load_program`.
    """
    if method not in (None, ProgramHeatmap()):
        raise ValueError(f"{file} has a heatmap method of its own: leave method out")
    if torch.device(device).type != "cpu":
        raise ValueError(f"an exported localizer runs on the CPU, not on {device}")
    program = load_program(file)
    return program, ProgramHeatmap(), program.threshold if threshold is None else threshold


def load_program(file: str | os.PathLike) -> Program:
    """Of an `.onnx` (needs onnxruntime) or a `.pt2`.

    Raises:
        ValueError: no such file, or none that `wsol.localizer.export` wrote.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"there is no exported localizer {file}")
    try:
        return Program(*_READERS[file.suffix](file))
    except ImportError as error:
        raise ValueError(f"{file.suffix} needs a package: pip install 'wsol[export]'") from error
    except Exception as error:  # whatever a damaged file makes the readers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is no exported localizer: {reason}") from error


def _read_onnx(file: Path) -> tuple[Both, Mapping[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors: what it could not fold is nobody's business
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def both(image: Tensor) -> tuple[Tensor, Tensor]:
        logits, heatmaps = session.run(["logits", "heatmap"], {"images": image.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(heatmaps)

    return both, session.get_modelmeta().custom_metadata_map


def _read_pt2(file: Path) -> tuple[Both, Mapping[str, str]]:
    texts = {METADATA: ""}
    module = torch.export.load(file, extra_files=texts).module()
    # not the module itself: as a part of another one it would refuse to be put in evaluation mode
    return lambda image: module(image), json.loads(texts[METADATA])


_READERS = {".onnx": _read_onnx, ".pt2": _read_pt2}
