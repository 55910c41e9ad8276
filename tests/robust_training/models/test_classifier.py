import argparse
import collections
import functools
import json

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from robust_training.autograd.batch_norm import attack_mode, batch_norm
from robust_training.models.creating import create_model, wrap_model
from robust_training.models.saving import load_model, save_model


def test_images_in_zero_one_are_normalised_inside():
    torch.manual_seed(0)
    model = create_model("resnet10t", 4, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    image = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(model.backbone.pretrained_cfg[k]) for k in ("mean", "std"))
    expected = model.backbone((image - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(model(image), expected)


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "mobilenetv2_035", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"],
)
def test_a_new_head_starts_at_zero(name):
    model = create_model(name, 4, image_size=32).eval()
    assert torch.equal(model(torch.rand(2, 3, 32, 32)), torch.zeros(2, 4))


def test_vit_takes_the_size_asked_for():
    model = create_model("vit_tiny_patch16_224", 2, image_size=48)
    assert model(torch.rand(1, 3, 48, 48)).shape == (1, 2)
    assert model.image_size == 48


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_weights_with_another_head_load(tmp_path, suffix, prefix):
    torch.manual_seed(0)
    source = timm.create_model("test_resnet", num_classes=7)
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, file)
    else:
        safetensors.torch.save_file(state, file)
    model = create_model("test_resnet", 3, weights=file)
    torch.testing.assert_close(model.backbone.conv1.state_dict(), source.conv1.state_dict())
    assert not model.backbone.fc.weight.any()
    same = create_model("test_resnet", 7, weights=file)
    torch.testing.assert_close(same.backbone.fc.weight, source.fc.weight)


class Settings(dict):
    """A class that a checkpoint names and that is not read."""


def _source():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3)


def _prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda m, s: {"epoch": 1, "state_dict": s, "args": argparse.Namespace(lr=Settings(a=1))},
        lambda m, s: {
            "net": s,
            "best": np.float64(0.5),
            "random": np.random.default_rng(0).random(3),
            "counts": collections.defaultdict(list, a=[1]),
            "act": functools.partial(torch.nn.functional.relu, inplace=True),
        },
        lambda m, s: m,
        lambda m, s: {
            "model": torch.nn.DataParallel(m),
            "optimizer": torch.optim.SGD(m.parameters()),
        },
        lambda m, s: _prefixed("_orig_mod.", s),
        lambda m, s: _prefixed("module._orig_mod.", s),
        lambda m, s: _prefixed("model.module.", s),
        lambda m, s: _prefixed("module.module.", s),
        lambda m, s: {"ema": s},
        lambda m, s: {"model_state_dict": _prefixed("net.", s)},
        lambda m, s: {"state_dict": _prefixed("model.", s) | {"loss.weight": torch.ones(2)}},
        lambda m, s: {"state_dict": {k: 2 * v for k, v in s.items()}, "state_dict_ema": s},
        lambda m, s: _prefixed("model.", {k: 2 * v for k, v in s.items()}) | _prefixed("ema.", s),
        lambda m, s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    ],
)
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_checkpoints_of_other_programs_load(tmp_path, name, content):
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=3)
    torch.save(content(source, source.state_dict()), tmp_path / "w.pth")
    loaded = create_model(name, 3, weights=tmp_path / "w.pth").backbone.state_dict()
    torch.testing.assert_close(loaded, dict(source.state_dict()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "there is no tensor in its list"),
        ({"epoch": 1, "args": 2}, "there is no tensor in its dict 'epoch', 'args'"),
        (
            {"student": _source().state_dict(), "teacher": _source().state_dict()},
            "student., teacher.",
        ),
    ],
)
def test_checkpoints_without_one_set_of_weights_say_what_is_in_them(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"{message}; save the weights alone: torch.save"):
        create_model("test_resnet", 3, weights=tmp_path / "w.pth")


def _trace(model, file):
    torch.jit.save(torch.jit.trace(model.eval(), torch.zeros(1, 3, 32, 32)), file)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "write",
    [
        _trace,
        lambda model, file: file.write_bytes(b"<!DOCTYPE html>"),
        lambda model, file: file.write_bytes(b""),
        lambda model, file: torch.save(model, file, pickle_protocol=4),
        lambda model, file: torch.save(model, file, _use_new_zipfile_serialization=False),
    ],
)
def test_files_that_are_not_read_get_one_plain_line(tmp_path, write):
    write(_source(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="cannot read weights from .*: save|torch.save") as caught:
        create_model("test_resnet", 3, weights=tmp_path / "w.pth")
    assert str(caught.value).isprintable()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_resnet", {"in_chans": 6}, "cannot take RGB images of 160 x 160 .*6 channels"),
        ("test_resnet", {"in_chans": 12}, "cannot take RGB images"),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 2},
            "cannot take RGB images of 224 x 224 .*the image_size that it was built for",
        ),
        (
            "test_resnet",
            {"pretrained_cfg_overlay": {"input_size": (3, 64, 96)}},
            "meant for images of 64 x 96 pixels, and only square images",
        ),
        ("test_resnet", {"dtype": torch.float16}, r"weights are torch.float16: .*\.float\(\)"),
        ("test_resnet", {"dtype": torch.bfloat16}, r"weights are torch.bfloat16"),
        ("test_resnet", {"dtype": torch.float64}, r"weights are torch.float64"),
    ],
)
def test_networks_that_would_fail_later_are_not_wrapped(name, options, message):
    dtype = options.get("dtype", torch.float32)
    built = {key: value for key, value in options.items() if key != "dtype"}
    network = timm.create_model(name, num_classes=3, **built).to(dtype)
    with pytest.raises(ValueError, match=message):
        wrap_model(network)


def test_wrapping_keeps_modes_and_statistics():
    network = _source()
    network.train().conv1.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wrapped = wrap_model(network, image_size=32)
    assert wrapped.training
    assert network.training
    assert not network.conv1.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_weights_that_do_not_fit_name_the_tensors(tmp_path):
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    bn = next(name for name in state if name.endswith("bn1.weight"))
    del state[bn]
    state["stray"] = torch.zeros(1)
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, file)
    with pytest.raises(ValueError, match=f"{bn} is missing; stray is not in the model"):
        create_model("test_resnet", 3, weights=file)
    file.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot read weights from"):
        create_model("test_resnet", 3, weights=file)
    with pytest.raises(ValueError, match="there is no weights file"):
        create_model("test_resnet", 3, weights=tmp_path / "none.pth")


def test_pretrained_weights_of_real_birds_load(shared):
    model = create_model(
        "mobilenetv2_100", 10, weights=shared / "weights" / "mobilenetv2_100.imagenet.safetensors"
    )
    assert not model.backbone.classifier.weight.any()
    assert model.backbone.conv_stem.weight.abs().sum() > 0


def test_the_message_about_an_unknown_name_has_similar_names():
    with pytest.raises(ValueError, match="did you mean resnet50"):
        create_model("resnet5O", 3)
    with pytest.raises(ValueError, match="num_classes"):
        create_model("resnet10t", 0)


@pytest.mark.parametrize("name", ["resnet50", "resnet18", "resnet10t"])
def test_last_stride_one_doubles_the_last_map_and_keeps_weights(name):
    torch.manual_seed(0)
    model = create_model(name, 2, last_stride=1).eval()
    plain = timm.create_model(name, num_classes=2)
    plain.load_state_dict(model.backbone.state_dict())
    image = torch.rand(1, 3, 64, 64)
    assert model.backbone.forward_features(image).shape[-2:] == (4, 4)
    assert plain.forward_features(image).shape[-2:] == (2, 2)
    dilations = {m.dilation for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilations == {(1, 1)}


def test_a_last_stride_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="last_stride cannot be set for 'vit_tiny"):
        create_model("vit_tiny_patch16_224", 2, last_stride=1, image_size=32)
    with pytest.raises(ValueError, match="does not double the last feature map of 'convnext"):
        create_model("convnext_atto", 2, last_stride=1)
    with pytest.raises(ValueError, match="last_stride must be 1 or 2"):
        create_model("resnet10t", 2, last_stride=3)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv2_035", "vit_tiny_patch16_224"])
def test_a_saved_folder_opens_in_timm_and_here(tmp_path, name):
    torch.manual_seed(0)
    model = create_model(name, 3, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.get_classifier().weight)
    model.class_names = ["a", "b", "c"]
    folder = tmp_path / "best"
    for _ in range(2):  # the second replaces the first
        save_model(model, folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best"]
    image = torch.rand(2, 3, 32, 32)
    here = load_model(folder)
    assert here.class_names == ["a", "b", "c"]
    assert here.image_size == 32
    torch.testing.assert_close(here(image), model(image))
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    torch.testing.assert_close(plain(model.normalize(image)), model(image))


def test_last_stride_is_saved_in_the_folder(tmp_path):
    model = create_model("resnet10t", 3, last_stride=1).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    save_model(model, tmp_path / "best")
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load_model(tmp_path / "best")(image), model(image))
    assert "stride 1" in (tmp_path / "best" / "README.md").read_text()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet10t"}))
    with pytest.raises(ValueError, match=r"there is no model.safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot build the model"):
        load_model(tmp_path)


def test_batch_norm_modes(tiny, batch):
    image, _ = batch
    norm = tiny.backbone.bn
    outputs = {}
    for mode in ("update", "batch", "running"):
        norm.reset_running_stats()
        with batch_norm(tiny, mode):
            outputs[mode] = tiny(image)
        assert norm.num_batches_tracked.item() == (mode == "update")
        assert norm.training
        assert norm.track_running_stats
    torch.testing.assert_close(outputs["update"], outputs["batch"])
    assert not torch.allclose(outputs["running"], outputs["batch"])


def test_attack_mode_restores_trained_parameters(tiny):
    tiny.backbone.fc.bias.requires_grad_(False)

    def interrupted():
        with attack_mode(tiny, "running"):
            assert not any(p.requires_grad for p in tiny.parameters())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert [n for n, p in tiny.backbone.named_parameters() if not p.requires_grad] == ["fc.bias"]
    assert tiny.backbone.bn.training
