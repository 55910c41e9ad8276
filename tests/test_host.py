"""A library leaves the program that imports it alone."""

import ast
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.helpers.commands import ROOT

# Modules of other packages are loaded first, since it is not ours what they change. albumentations
# is the exception: ours set an environment variable for its import.
SCRIPT = """
import atexit, importlib, logging, multiprocessing, os, pkgutil, signal, sys, warnings

for name in sys.stdin.read().split():
    importlib.import_module(name)

import jsonargparse, numba, torch

def state():
    return {
        "signal handlers": {n: repr(signal.getsignal(n)) for n in signal.valid_signals()},
        "blocked signals": repr(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "environment": dict(os.environ),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "denormals": (torch.tensor([1e-310], dtype=torch.float64) * 1).item(),
        "warnings": repr(warnings.filters) + repr(warnings.showwarning)
        + repr(warnings.formatwarning),
        "logging": (logging.root.level, repr(logging.root.handlers)),
        "YAML loader": repr(jsonargparse.get_loader("yaml")),
        "parser mode": repr(jsonargparse.ArgumentParser().parser_mode),
        "exception hook": repr(sys.excepthook),
        "working directory": os.getcwd(),
        "exit handlers": list(exit_handlers),
        "random state": torch.get_rng_state().sum().item(),
    }

exit_handlers = []
register = atexit.register
atexit.register = lambda call, *args, **kw: exit_handlers.append(repr(call)) or register(call)
before = state()
names = []
for name in ("robust_training", "wsol"):
    package = importlib.import_module(name)
    names += [name, *(m.name for m in pkgutil.walk_packages(package.__path__, f"{name}."))]
for name in names:
    importlib.import_module(name)
after = state()
atexit.register = register
assert len(names) > 80, names
for what in before:
    assert before[what] == after[what], (what, before[what], after[what])
# numba's first parallel kernel sets OpenMP's threads to all cores, which other processes may need
child = os.fork()
if not child:
    torch.set_num_threads(1)
    kernels = importlib.import_module("robust_training.autograd.softplus_kernels")
    kernels.softplus(torch.ones(9), 50.0)
    os._exit(torch.get_num_threads() != 1)
assert os.waitpid(child, 0)[1] == 0
assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
"""


def other_packages() -> set[str]:
    """Modules of other packages that ours import, without optional ones that are missing here."""
    found = set()
    for package in ("robust_training", "wsol"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(node.module)
    own = ("robust_training", "wsol", "albumentations")
    parts = {name: name.partition(".")[0] for name in found}
    return {name for name, top in parts.items() if top not in own and find_spec(top)}


@pytest.mark.ci
def test_importing_every_module_and_the_first_kernel_change_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=" ".join(sorted(other_packages())),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
