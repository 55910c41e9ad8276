"""Devices by name."""

from unittest import mock

import pytest
import torch

from wsol.cli.devices import find_device


def test_auto_takes_the_best_device_that_is_there():
    made = mock.Mock(side_effect=lambda *_, device: mock.Mock(device=torch.device(device)))
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        with (
            mock.patch.object(torch.cuda, "is_available", lambda cuda=cuda: cuda),
            mock.patch.object(torch.backends.mps, "is_available", lambda mps=mps: mps),
            mock.patch.object(torch, "zeros", made),
        ):
            assert find_device("auto").type == expected
    with pytest.raises(ValueError, match="device 'gpu' is not there"):
        find_device("gpu")
