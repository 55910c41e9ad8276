"""Exported localizers: `.onnx` and `.pt2` files of `wsol.localizer.export`."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Run = Callable[[Tensor], tuple[Tensor, Tensor]]
METADATA = "metadata.json"  # inside a .pt2; an .onnx has properties with the same names


@dataclass(frozen=True)
class Program:
    """Images (N,3,S,S) in [0,1] -> logits (N,C), and heatmaps (N,S,S) of the predicted classes.

    One call computes both. It has no state, so several threads may share it.

    Attributes:
        run: Computes logits and heatmaps on the CPU.
        image_size: S.
        class_names: Class names in label order; numbers as text if the trained model had no names.
        threshold: A box encloses pixels above this fraction of the heatmap's maximum.
    """

    run: Run
    image_size: int
    class_names: list[str]
    threshold: float

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.run(images)

    def to(self, device: str | torch.device) -> "Program":
        """Returns the program itself. Raises ValueError for any device except the CPU."""
        if torch.device(device).type != "cpu":
            raise ValueError(f"an exported localizer runs on the CPU, not on {device}")
        return self


def is_program(file: str | os.PathLike) -> bool:
    return Path(file).suffix in _READERS


def load_program(file: str | os.PathLike) -> Program:
    """Reads an `.onnx` (needs onnxruntime) or a `.pt2`. Raises ValueError if there is no such file,
    or `wsol.localizer.export` did not write it."""
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"there is no exported localizer {file}")
    try:
        run, metadata = _READERS[file.suffix](file)
        return Program(
            run,
            int(metadata["image_size"]),
            json.loads(metadata["class_names"]),
            float(metadata["threshold"]),
        )
    except ImportError as error:
        raise ValueError(f"{file.suffix} needs a package: pip install 'wsol[export]'") from error
    except Exception as error:  # the readers raise many types of errors for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is not an exported localizer: {reason}") from error


def _read_onnx(file: Path) -> tuple[Run, Mapping[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: warnings list constants that were not folded
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        logits, heatmaps = session.run(["logits", "heatmap"], {"images": image.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(heatmaps)

    return run, session.get_modelmeta().custom_metadata_map


def _read_pt2(file: Path) -> tuple[Run, Mapping[str, str]]:
    texts = {METADATA: ""}
    module = torch.export.load(file, extra_files=texts).module()
    return module, json.loads(texts[METADATA])


_READERS = {".onnx": _read_onnx, ".pt2": _read_pt2}
