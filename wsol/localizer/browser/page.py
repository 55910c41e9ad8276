"""Writes the page: the exported program, onnxruntime-web and the script, in one file."""

import base64
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from robust_training.atomic_io import write_text
from wsol.data.names import titles
from wsol.localizer.exported_program import load_program
from wsol.localizer.overlay import PREDICTED, heat_layer

PACKAGE = "onnxruntime-web@1.30.0"
_SCRIPT, _WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"


@dataclass(frozen=True)
class Runtime:
    """The two files of onnxruntime-web (MIT licence) that a page needs."""

    script: bytes
    wasm: bytes


def read_runtime(package: str | os.PathLike | None = None) -> Runtime:
    """Reads onnxruntime-web.

    Args:
        package: The package's folder (node_modules/onnxruntime-web), or the .tgz that `npm pack`
            writes. If None, npm fetches `PACKAGE`, or takes it from its own cache.

    Raises:
        ValueError: npm is missing or fails, or the files are not in the package. The message says
            what to do.
    """
    if package is None:
        with tempfile.TemporaryDirectory() as folder:
            return read_runtime(_fetch(Path(folder)))
    package = Path(package)
    try:
        if package.is_dir():
            return Runtime(*((package / name).read_bytes() for name in (_SCRIPT, _WASM)))
        with tarfile.open(package) as archive:
            found = (archive.extractfile(f"package/{name}") for name in (_SCRIPT, _WASM))
            return Runtime(*(file.read() for file in found))
    except (OSError, KeyError, AttributeError, EOFError, tarfile.TarError) as error:
        raise ValueError(
            f"{package} is not the package {PACKAGE}, its folder or its .tgz: {error}"
        ) from error


def _fetch(folder: Path) -> Path:
    """Lets npm write `PACKAGE` as a .tgz into the folder."""
    advice = (
        f"a page needs {PACKAGE}: install npm, or run `npm pack {PACKAGE}` on another machine and "
        "give the .tgz with --onnxruntime_web"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"npm is missing; {advice}")
    command = [npm, "pack", PACKAGE, "--prefer-offline", "--silent"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"npm failed: {error}; {advice}") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        reason = (done.stderr.strip() or "it wrote no file").splitlines()[-1]
        raise ValueError(f"npm failed: {reason}; {advice}")
    return archives[0]


def write_page(program: str | os.PathLike, runtime: Runtime, file: str | os.PathLike) -> None:
    """Writes one HTML file that localizes photos in a browser. It needs no other file and no
    network, and also works when it is opened from a disk.

    Raises:
        ValueError: the program is not an exported .onnx.
    """
    program = Path(program)
    if program.suffix != ".onnx":
        raise ValueError(f"a page needs an exported .onnx, not {program.name}")
    about = load_program(program)
    script = _file("page.js")
    content = {
        "class_names": titles(about.class_names),
        "image_size": about.image_size,
        "threshold": about.threshold,
        "colours": heat_layer(np.linspace(0, 1, 256)[None])[0].tolist(),
        "predicted": f"rgb{PREDICTED}",
    }
    page = Template(_file("page.html")).substitute(
        about=json.dumps(content).replace("<", "\\u003c"),
        program=_packed(program.read_bytes()),
        runtime=_packed(runtime.script),
        wasm=_packed(runtime.wasm),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(file, page)


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _file(name: str) -> str:
    return resources.files("wsol.localizer.browser").joinpath(name).read_text(encoding="utf-8")
