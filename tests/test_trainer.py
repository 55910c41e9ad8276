import csv

import pytest
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset

from robust_training.attack import PGD
from robust_training.model import create_model, load_model
from robust_training.objectives import ART, Objective, Standard
from robust_training.schedule import Cosine, Steps
from robust_training.trainer import fit, parameter_groups


class Stripes(Dataset):
    """Two classes: bright at the top or at the bottom."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        image = torch.full((3, 32, 32), 0.3)
        label = index % 2
        image[:, 16 * label : 16 * label + 16] = 0.8
        return {"image": image + 0.05 * torch.rand(3, 32, 32), "label": label}


def train(output, *, epochs=2, objective=None, seed=0, resume=False, **settings):
    torch.manual_seed(seed)
    model = create_model("test_resnet", 2, image_size=32)
    log = fit(
        Fabric(accelerator="cpu", devices=1),
        model,
        objective or Standard(),
        DataLoader(Stripes(), 8, shuffle=True),
        DataLoader(Stripes(), 8),
        output,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
        schedule=Steps(milestones=(1,)),
        epochs=epochs,
        seed=seed,
        resume=resume,
        **settings,
    )
    return model, log


def test_training_learns_and_leaves_a_run(tmp_path):
    _, log = train(tmp_path / "run", epochs=4)
    assert log[-1]["cross_entropy"] < log[0]["cross_entropy"]
    assert max(row["val_accuracy"] for row in log) > 0.9
    assert (tmp_path / "run" / "last.ckpt").is_file()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    with open(tmp_path / "run" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[0]["lr"]) == pytest.approx(0.005)  # the milestone at epoch 1
    best = load_model(tmp_path / "run" / "best")
    batch = next(iter(DataLoader(Stripes(), 16)))
    assert (best(batch["image"]).argmax(1) == batch["label"]).float().mean() > 0.9


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    art = ART(attack=PGD(2 / 255, 2 / 255, 1))
    whole, log = train(tmp_path / "whole", epochs=3, objective=art)
    train(tmp_path / "parts", epochs=1, objective=art)
    resumed, resumed_log = train(tmp_path / "parts", epochs=3, objective=art, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    keys = [key for key in log[0] if key != "seconds"]
    assert [[row[k] for k in keys] for row in log] == [[r[k] for k in keys] for r in resumed_log]


def test_the_seed_decides(tmp_path):
    first, second, other = (
        train(tmp_path / str(i), epochs=1, seed=seed)[1] for i, seed in enumerate((0, 0, 1))
    )
    assert first[0]["cross_entropy"] == second[0]["cross_entropy"]
    assert first[0]["cross_entropy"] != other[0]["cross_entropy"]


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="nothing to resume"):
        train(tmp_path / "none", resume=True)


def test_a_loss_that_is_not_finite_names_the_term(tmp_path):
    class Broken(Objective):
        def __call__(self, model, image, label):
            return {"good": model(image).sum(), "bad": model(image).sum() * float("nan")}

    with pytest.raises(FloatingPointError, match=r"epoch 1/2, step 1.*'bad': nan"):
        train(tmp_path / "run", objective=Broken())
    Objective.__subclasses__().remove(Broken)


def test_channels_last_and_clipping_run(tmp_path):
    _, log = train(tmp_path / "run", epochs=1, channels_last=True, clip_norm=0.1)
    assert log[0]["cross_entropy"] > 0


def test_parameter_groups_by_name(tiny):
    groups = parameter_groups(tiny.backbone, {r"^fc\.": 10.0, "conv": 0.5})
    sizes = [(len(group["params"]), group["multiplier"]) for group in groups]
    assert sizes == [(2, 1.0), (2, 10.0), (4, 0.5)]
    with pytest.raises(ValueError, match="matches layer9"):
        parameter_groups(tiny.backbone, {"layer9": 1.0})


def test_schedules_by_hand():
    steps = Steps(milestones=(2, 4), factor=0.1)
    assert [steps(e, 6) for e in (0, 1.9, 2, 4)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = Cosine(warmup_epochs=2, final=0.1)
    assert cosine(1, 10) == pytest.approx(0.5, abs=1e-3)
    assert cosine(6, 10) == pytest.approx(0.55)
    assert cosine(10, 10) == pytest.approx(0.1)
    assert 0 < cosine(0, 10) < 0.01  # the first step moves a little
