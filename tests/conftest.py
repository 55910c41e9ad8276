"""Fixtures of all tests. None needs the network; `shared` needs the folder beside the project."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from tests.helpers.commands import train
from wsol.data.toy_birds.writing import write_toy_birds

torch.set_flush_denormal(True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference values and real data that the project does not ship."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("there is no ../shared")
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """60 toy birds of 48 px: 4 species, 15 images each, 5 of them for test."""
    return write_toy_birds(tmp_path_factory.mktemp("toy"), images=60, size=48, species=4)


@pytest.fixture(scope="session")
def run(toy, tmp_path_factory):
    """A run of train.py: ART on the toy birds, one epoch."""
    output = tmp_path_factory.mktemp("runs") / "art"
    status, text, error = train("--data.root", toy, "--output", output)
    assert status == 0, error
    assert str(output / "best") in text
    assert "note: attribution " in text
    return output


class TinyNet(nn.Module):
    """Two convolutions with BatchNorm and ReLU, a linear head: timm's minimum."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv1(x)))
        return self.fc(torch.relu(self.conv2(x)).mean(dim=(2, 3)))


@pytest.fixture
def tiny() -> Classifier:
    """A float64 classifier small enough for finite differences, in training mode."""
    torch.manual_seed(0)
    return Classifier(TinyNet(), (0.5, 0.4, 0.3), (0.3, 0.25, 0.2)).double()


@pytest.fixture(scope="session")
def network() -> Classifier:
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    return model


@pytest.fixture(scope="session")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 32, 32, generator=generator), torch.arange(6) % 3


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 3, 7, 7, generator=generator, dtype=torch.float64)
    return image, torch.tensor([0, 2, 1])


def cosine(first: list[Tensor], second: list[Tensor]) -> float:
    """Cosine between two lists of tensors, each taken as one long vector."""
    a, b = (torch.cat([t.flatten().double() for t in tensors]) for tensors in (first, second))
    return float(a @ b / (a.norm() * b.norm()))
