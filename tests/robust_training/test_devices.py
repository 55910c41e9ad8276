"""Settings of the process."""

import torch

from robust_training.autograd.batch_norm import attribute_set
from robust_training.devices import prepare_device


def test_a_gpu_computes_float32_without_tf32():
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    with attribute_set(switches, "allow_tf32", True):
        prepare_device(torch.device("cpu"))
        assert all(switch.allow_tf32 for switch in switches)
        prepare_device(torch.device("cuda"))
        assert not any(switch.allow_tf32 for switch in switches)
