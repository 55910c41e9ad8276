"""Devices and processes of a command."""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from robust_training.devices import prepare_device
from wsol.cli.parser import one_line


def find_device(name: str) -> torch.device:
    """The device called `name`, ready for use; "auto" is the GPU if there is one. Raises ValueError
    if this machine does not have it."""
    if name == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else mps
    try:
        device = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not there: {one_line(error)}") from error
    prepare_device(device)
    return device


def launch(name: str, devices: int | None) -> tuple[torch.device, Fabric | None]:
    """Starts one process for each device; torchrun has started them already.

    Args:
        name: Device, such as "auto", "cpu", "cuda" or "cuda:1".
        devices: Number of devices of this kind, or on CPUs the number of processes. If None, the
            number that torchrun gives, or 1.

    Returns:
        The device of this process, and the processes. None if there is only one.

    Raises:
        ValueError: this machine does not have these devices.
    """
    nodes = 1
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun
        devices = devices or int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if (devices or 1) * nodes == 1:
        return find_device(name), None
    try:
        fabric = Fabric(accelerator=name, devices=devices, num_nodes=nodes, strategy="ddp")
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ValueError(f"{devices} devices {name!r} are not there: {one_line(error)}") from error
    prepare_device(fabric.device)
    return fabric.device, fabric
