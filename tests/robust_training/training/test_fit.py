import csv
import functools
import multiprocessing
import signal
import time

import pytest
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset

import robust_training
from robust_training.attacks.pgd import PGD
from robust_training.models.creating import create_model
from robust_training.models.saving import load_model
from robust_training.objectives import ART, MarginalDensity, Objective, Standard
from robust_training.training.batches import SeededBatches
from robust_training.training.fit import fit
from robust_training.training.interrupts import Stopped
from robust_training.training.schedule import Cosine, Steps, parameter_groups
from robust_training.training.settings import TrainingSettings
from robust_training.training.step import Step


class Stripes(Dataset):
    """Images of two classes: bright at the top or at the bottom."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        image = torch.full((3, 32, 32), 0.3)
        label = index % 2
        image[:, 16 * label : 16 * label + 16] = 0.8
        return {"image": image + 0.05 * torch.rand(3, 32, 32), "label": label}


def loader(batch=8, *, is_seeded=True, workers=0):
    if not is_seeded:
        return DataLoader(Stripes(), batch, shuffle=True, num_workers=workers)
    batches = SeededBatches(len(Stripes()), batch)
    return DataLoader(Stripes(), batch_sampler=batches, num_workers=workers)


def recipe(*, milestones=(1,), epochs=2, **settings):
    return TrainingSettings(
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
        schedule=Steps(milestones=milestones),
        epochs=epochs,
        **settings,
    )


def train(
    output,
    *,
    objective=None,
    seed=0,
    resume=False,
    precision="32-true",
    fabric=None,
    batch=8,
    network="test_resnet",
    images=None,
    validation=None,
    on_start=lambda: None,
    **settings,
):
    torch.manual_seed(seed)
    model = create_model(network, 2, image_size=32)
    log = fit(
        model,
        objective or Standard(),
        images or loader(batch),
        validation or DataLoader(Stripes(), 8),
        output,
        recipe(seed=seed, **settings),
        fabric=fabric or Fabric(accelerator="cpu", devices=1, precision=precision),
        resume=resume,
        on_start=on_start,
    )
    return model, log


def test_training_learns_and_writes_a_run(tmp_path):
    # without BatchNorm any seed learns; its running statistics need more than 8 steps
    _, log = train(tmp_path / "run", epochs=4, network="test_convnext")
    assert log[-1]["cross_entropy"] < log[0]["cross_entropy"]
    assert max(row["val_accuracy"] for row in log) > 0.9
    assert (tmp_path / "run" / "last.ckpt").is_file()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    with open(tmp_path / "run" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    lr = [float(row["lr"]) for row in rows]
    assert lr == pytest.approx([0.05, 0.005, 0.005, 0.005])  # the milestone at epoch 1
    best = load_model(tmp_path / "run" / "best")
    batch = next(iter(DataLoader(Stripes(), 16)))
    assert (best(batch["image"]).argmax(1) == batch["label"]).float().mean() > 0.9


def test_accumulated_gradients_equal_the_larger_batchs_gradients(tmp_path):
    """A network without BatchNorm; the last step of an epoch may have fewer batches."""
    whole, log = train(tmp_path / "whole", batch=8, network="test_vit", clip_norm=1.0)
    parts, parts_log = train(
        tmp_path / "parts", batch=4, accumulate=2, network="test_vit", clip_norm=1.0
    )
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    assert [row["lr"] for row in log] == [row["lr"] for row in parts_log]
    assert log[-1]["cross_entropy"] == pytest.approx(parts_log[-1]["cross_entropy"], rel=1e-4)
    odd, _ = train(tmp_path / "odd", batch=4, accumulate=3, network="test_vit", epochs=1)
    plain, _ = train(tmp_path / "plain", batch=4, network="test_vit", epochs=1)
    assert any((a != b).any() for a, b in zip(odd.parameters(), plain.parameters(), strict=True))


def test_replayed_batches_continue_their_attack(tmp_path):
    """Three steps on a batch: the second attack starts at the first attack's result."""
    seen = []

    class Watched(PGD):
        def __call__(self, score, image, start=None):
            result = super().__call__(score, image, start)
            seen.append((image, start, result))
            return result

    art = ART(attack=Watched(4 / 255, 2 / 255, 1))
    _, log = train(tmp_path / "run", objective=art, batch=2, replays=3)
    assert len(log) == 2
    # an epoch keeps its number of steps; validation attacks two batches, before the training too,
    # and the sanity check one
    assert len(seen) == 2 + 2 * (8 + 2) + 1
    seen = seen[2:]
    for group in (range(0, 3), range(3, 6), range(6, 8)):
        images, starts, results = zip(*(seen[i] for i in group), strict=True)
        assert all(torch.equal(image, images[0]) for image in images)
        assert all(torch.equal(a, b) for a, b in zip(starts[1:], results, strict=False))
        assert all((r - images[0]).abs().max() <= 4 / 255 + 1e-6 for r in results)
    assert not torch.equal(seen[0][0], seen[3][0])


def test_a_resumed_run_equals_the_uninterrupted_run(tmp_path):
    art = ART(attack=PGD(2 / 255, 2 / 255, 1))
    whole, log = train(tmp_path / "whole", epochs=3, objective=art)
    train(tmp_path / "parts", epochs=1, objective=art)
    resumed, resumed_log = train(tmp_path / "parts", epochs=3, objective=art, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    keys = [key for key in log[0] if key != "seconds"]
    assert [[row[k] for k in keys] for row in log] == [[r[k] for k in keys] for r in resumed_log]


@pytest.mark.parametrize("is_seeded", [True, False])
def test_training_leaves_processes_of_the_host_alone(tmp_path, is_seeded):
    """Also if training fails while loader processes run."""

    class Failing(Standard):
        def at(self, epoch):
            if epoch > 0.5:
                raise RuntimeError("a failure in the middle of an epoch")
            return self

    host = multiprocessing.Process(target=time.sleep, args=(600,), daemon=True)
    host.start()
    images = loader(4, is_seeded=is_seeded, workers=2)
    train(tmp_path / "whole", epochs=1, images=images)
    with pytest.raises(RuntimeError, match="a failure in the middle"):
        train(tmp_path / "failed", epochs=1, images=images, objective=Failing())
    assert multiprocessing.active_children() == [host]
    host.kill()
    host.join()


def test_a_plain_loader_resumes_within_an_epoch(tmp_path):
    class Stopping(Standard):
        def at(self, epoch):
            if epoch == 1.5:
                signal.raise_signal(signal.SIGTERM)
            return self

    whole, log = train(tmp_path / "whole", images=loader(4, is_seeded=False))
    with pytest.raises(Stopped, match="in epoch 2, after 3 of 4 batches"):
        train(tmp_path / "parts", images=loader(4, is_seeded=False), objective=Stopping())
    parts, again = train(tmp_path / "parts", images=loader(4, is_seeded=False), resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    assert log[1]["cross_entropy"] == again[1]["cross_entropy"]


def test_training_with_few_arguments(tmp_path):
    """A notebook needs only the package's public names, and no Fabric."""
    model = robust_training.create_model("test_resnet", 2, image_size=32)
    settings = robust_training.TrainingSettings(
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        schedule=robust_training.training.Cosine(),
        epochs=1,
    )
    images = DataLoader(Stripes(), 8, shuffle=True)
    objective = robust_training.objectives.Standard()
    log = robust_training.fit(model, objective, images, images, tmp_path / "run", settings)
    assert [row["epoch"] for row in log] == [1]


def test_no_epoch_saves_the_network_as_it_is(tmp_path):
    model = robust_training.create_model("test_resnet", 2, image_size=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = robust_training.TrainingSettings(
        optimizer=torch.optim.AdamW, schedule=robust_training.training.Cosine(), epochs=0
    )
    images = DataLoader(Stripes(), 8)
    objective = robust_training.objectives.Standard()
    for resume in (False, True):
        log = robust_training.fit(
            model, objective, images, images, tmp_path, settings, resume=resume
        )
        assert [row["epoch"] for row in log] == [0]
        assert 0 <= log[0]["val_accuracy"] <= 1
    after = robust_training.load_model(tmp_path / "best").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "epochs must be 0 or more, not -1"),
        ({"accumulate": 0}, "accumulate must be at least 1, not 0"),
        ({"replays": 0}, "replays must be at least 1, not 0"),
        ({"replays": 2, "accumulate": 2}, "replays must be 1 if gradients are accumulated"),
        ({"skip_nonfinite": -1}, "skip_nonfinite must be 0 or more, not -1"),
        ({"save_minutes": float("nan")}, "save_minutes must be 0 or more, not nan"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, or None, not 0.0"),
        ({"selection": "best"}, "selection must be .*, not 'best'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        recipe(**settings)


def test_the_seed_determines_the_run(tmp_path):
    first, second, other = (
        train(tmp_path / str(i), epochs=1, seed=seed)[1] for i, seed in enumerate((0, 0, 1))
    )
    assert first[0]["cross_entropy"] == second[0]["cross_entropy"]
    assert first[0]["cross_entropy"] != other[0]["cross_entropy"]


def test_nothing_to_resume(tmp_path):
    started = []
    settings = {"resume": True, "on_start": lambda: started.append(1)}
    with pytest.raises(ValueError, match="nothing to resume"):
        train(tmp_path / "none", **settings)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "last.ckpt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is damaged or does not fit"):
        train(tmp_path / "none", **settings)
    assert not started


def test_a_run_may_continue_with_another_objective(tmp_path):
    train(tmp_path / "run", epochs=1)
    art = ART(attack=PGD(2 / 255, 2 / 255, 1))
    _, log = train(tmp_path / "run", epochs=2, objective=art, resume=True)
    assert ["attribution" in row for row in log] == [False, True]
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert "attribution" in header


class Whisper(Standard):
    def __call__(self, model, image, label):
        terms = super().__call__(model, image, label)
        return terms | {"whisper": 1e-6 * terms["cross_entropy"]}


def test_a_term_too_small_to_train_is_named(tmp_path, capsys):
    train(tmp_path / "run", objective=Whisper())
    assert capsys.readouterr().out.count("note: whisper is 1e-06 of the loss") == 1


def test_a_single_class_is_refused(tmp_path):
    model = create_model("resnet10t", 1, image_size=32)
    with pytest.raises(ValueError, match="at least 2 classes"):
        Step(model, Standard())


def test_a_loss_that_is_not_finite_names_the_term(tmp_path):
    class Broken(Objective):
        def __call__(self, model, image, label):
            return {"good": model(image).sum(), "bad": model(image).sum() * float("nan")}

    with pytest.raises(FloatingPointError, match=r"epoch 1/2, step 1.*'bad': nan"):
        train(tmp_path / "run", objective=Broken())


def test_a_layer_without_second_derivative_is_named(tmp_path):
    settings = {"network": "mobilenetv3_small_050", "epochs": 1}
    with pytest.raises(ValueError, match=r"hardsigmoid.*finite_difference"):
        train(tmp_path / "exact", objective=MarginalDensity(), **settings)
    train(tmp_path / "first", objective=MarginalDensity(curvature="finite_difference"), **settings)


def test_a_batch_too_small_for_batch_norm_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"raise data\.batch_size"):
        train(tmp_path / "run", batch=1, network="mobilenetv3_small_050")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16), ("64-true", torch.float64)],
)
def test_images_keep_float32_in_mixed_precision(tmp_path, precision, dtype):
    """Mixed precision must not round an image before it is attacked."""
    seen = []

    class Seeing(Objective):
        def __call__(self, model, image, label):
            seen.append(image.dtype)
            return Standard()(model, image, label)

    train(tmp_path / "run", epochs=1, objective=Seeing(), precision=precision)
    assert set(seen) == {dtype}


def test_first_order_art_trains_in_mixed_precision(tmp_path):
    art = ART(attack=PGD(2 / 255, 2 / 255, 1), curvature="finite_difference")
    _, log = train(tmp_path / "run", epochs=2, objective=art, precision="bf16-mixed")
    assert log[1]["cross_entropy"] < log[0]["cross_entropy"]


def test_selection_can_keep_the_last_epoch(tmp_path):
    def keep(selection):
        model, log = train(tmp_path / selection, epochs=4, selection=selection, clip_norm=1e-9)
        best = load_model(tmp_path / selection / "best")
        same = torch.equal(best.backbone.fc.weight, model.backbone.fc.weight)
        accuracy = [row["val_accuracy"] for row in log]
        return same, accuracy[-1] >= max(accuracy)

    assert keep("last")[0]
    same, last_is_best = keep("val_accuracy")
    assert same == last_is_best


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
