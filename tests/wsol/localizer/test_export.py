"""Exported localizers, in processes that have neither this package nor, where it is not needed,
timm or PyTorch."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from robust_training.attribution.export_graph import TracedGradient
from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from robust_training.models.saving import load_model, save_model
from tests.helpers.commands import ROOT, tool
from wsol.heatmaps.heatmap import Gradient, attribution_heatmap
from wsol.localizer.export import ExportedHeatmap, export_program, write_program
from wsol.localizer.exported_program import Program
from wsol.localizer.localizer import Localizer

SIDE = 32
FAMILIES = {
    "test_resnet": {},
    "mobilenetv2_035": {},
    "test_efficientnet": {},
    "convnext_atto": {"dims": (16, 16, 24, 32), "depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_224": {"depth": 2, "embed_dim": 48, "img_size": SIDE, "patch_size": 8},
}


def stirred(backbone: nn.Module) -> nn.Module:
    """Fresh BatchNorms scale by 1, and timm's residual branches start at 0; change both."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)
    for parameter in backbone.get_classifier().parameters():
        nn.init.normal_(parameter, std=0.3)
    return backbone


def small(name: str) -> Classifier:
    torch.manual_seed(0)
    backbone = stirred(timm.create_model(name, num_classes=5, **FAMILIES[name]))
    return Classifier(backbone, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), image_size=SIDE).eval()


class Net(nn.Module):
    """One layer between a convolution and a head."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.pretrained_cfg = {"architecture": "net"}
        self.num_classes = 3
        self.conv, self.layer = nn.Conv2d(3, 4, 3), layer
        self.fc = nn.LazyLinear(3)

    def forward(self, x):
        return self.fc(torch.sin(self.layer(self.conv(x))).flatten(1))


def net(layer: nn.Module) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(Net(layer), image_size=13)
    model(torch.zeros(1, 3, 13, 13))
    return model.eval()


def run_elsewhere(code: str, *arguments, without: str = "") -> str:
    """Run a script in its own process, far from this package, and return its output."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}))\n"
    command = [sys.executable, "-c", blocked + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("side", [2, 5, 13, 33])
def test_the_exported_heatmap_is_the_evaluators(side):
    attribution = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    attribution[1] *= 1e-6
    attribution[2] = 0.5  # constant: zeros
    found = ExportedHeatmap(side)(attribution)
    np.testing.assert_allclose(found, attribution_heatmap(attribution), atol=1e-5)
    assert not found[2].any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d((2, 3), 1, (0, 1), divisor_override=5),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 2, (2, 3), stride=(3, 2), dilation=(2, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Upsample(size=12),
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2)),
    ],
    ids=str,
)
def test_a_traced_gradient_is_autograds(layer):
    model = net(layer)
    image = torch.rand(3, 3, 13, 13, requires_grad=True)
    logits = model(image)
    (expected,) = torch.autograd.grad(logits.max(dim=1).values.sum(), image)
    found = TracedGradient(model)(image.detach())
    torch.testing.assert_close(found[0], logits.detach())
    torch.testing.assert_close(found[1], expected)


_ELSEWHERE = """
import sys
import numpy as np, onnxruntime
images, place = sys.argv[1:]
images = np.load(images)
session = onnxruntime.InferenceSession(f"{place}.onnx")
np.savez(f"{place}.onnx.npz", *session.run(["logits", "heatmap"], {"images": images}))
assert "torch" not in sys.modules
import torch
found = torch.export.load(f"{place}.pt2").module()(torch.from_numpy(images))
np.savez(f"{place}.pt2.npz", *(tensor.numpy() for tensor in found))
assert not {"timm", "wsol", "robust_training"} & set(sys.modules)
"""


def check_elsewhere(place, model):
    """Programs <place>.onnx and <place>.pt2 give the model's logits and heatmaps, in batches of
    another size than the traced one."""
    images = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    np.save(place.with_name("images.npy"), images.numpy())
    run_elsewhere(_ELSEWHERE, place.with_name("images.npy"), place)
    expected = model(images).detach()
    heatmaps = Gradient()(model, images, expected.argmax(1))
    for kind in ("onnx", "pt2"):
        logits, found = np.load(f"{place}.{kind}.npz").values()
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found, heatmaps, atol=1e-4, err_msg=kind)


ATTENTION = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.ci if name == ATTENTION else pytest.mark.slow)
        for name in FAMILIES
    ],
)
def test_programs_of_every_family_run_elsewhere(name, tmp_path):
    model = small(name)
    program = export_program(model)
    for kind in ("onnx", "pt2"):
        write_program(program, Localizer(model, "gradient"), tmp_path / f"{name}.{kind}")
    check_elsewhere(tmp_path / name, model)


def test_what_onnx_cannot_say_is_named_and_the_pt2_is_written(tmp_path):
    localizer = Localizer(net(nn.AdaptiveAvgPool2d(2)), "gradient")
    program = export_program(localizer.model)
    write_program(program, localizer, tmp_path / "a.pt2")
    with pytest.raises(ValueError, match="net cannot.* operator for aten._adaptive_avg_pool2d_b"):
        write_program(program, localizer, tmp_path / "a.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt2"]


def test_a_program_that_computes_something_else_is_not_kept(tmp_path):
    """PyTorch's ONNX converter drops divisor_override without a word."""
    localizer = Localizer(net(nn.AvgPool2d(2, divisor_override=1)), "gradient")
    with pytest.raises(ValueError, match="the .onnx of net was wrong and is not kept"):
        write_program(export_program(localizer.model), localizer, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """A run of a smaller network, exported, with the threshold that evaluation would choose."""
    folder = tmp_path_factory.mktemp("exported") / "art"
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=SIDE).eval()
    stirred(model.backbone)
    save_model(model, folder / "best")
    shutil.copy(run / "config.yaml", folder)
    row = {"heatmap": "gradient", "policy": "val", "threshold": 0.37, "intervals": {}}
    row |= dict.fromkeys(("gt_known_loc", "top1_loc", "top5_loc"), 0.25)
    scores = {"localization": [row], "top1_accuracy": 0.5, "images": 20}
    (folder / "metrics.json").write_text(json.dumps(scores | {"model": str(folder)}))
    status, text, error = tool("export.py", folder, "--licence", "apache-2.0")
    assert status == 0, error
    assert text.count("heatmaps differ by at most") == 2
    return folder


@pytest.mark.ci
def test_a_program_runs_elsewhere(exported):
    check_elsewhere(exported / "localizer", load_model(exported / "best"))


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_program_localizes_as_the_run_does(exported, toy, kind):
    photos = sorted((toy / "images").rglob("*.jpg"))[:9]
    ours = Localizer.load(exported, "gradient")
    its = Localizer.load(exported / f"localizer.{kind}")
    assert its.threshold == ours.threshold == 0.37
    for one, other in zip(ours.predict(photos), its.predict(photos, batch_size=4), strict=True):
        assert (one.label, one.class_name, one.size) == (other.label, other.class_name, other.size)
        np.testing.assert_allclose(other.box, one.box, atol=1)
        # flat toy pictures: many activations lie on one ReLU's kink together
        np.testing.assert_allclose(other.heatmap, one.heatmap, atol=1e-2)
        assert other.score == pytest.approx(one.score, abs=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_threads_share_a_program(exported, kind):
    """Each of 8 threads gets the boxes, heatmaps and classes of its own images."""
    images = torch.rand(64, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    localizer = Localizer.load(exported / f"localizer.{kind}")
    expected = [next(localizer.predict(image)) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: next(localizer.predict(image)), images))
    for one, other in zip(found, expected, strict=True):
        assert (one.box, one.label, one.score) == (other.box, other.label, other.score)
        np.testing.assert_array_equal(one.heatmap, other.heatmap)


def test_a_program_keeps_no_answer():
    """Not from another thread, nor from before an image was changed in place."""
    program = Program(lambda images: (images.flatten(1)[:, :2], images[:, 0]), 1, ["a", "b"], 0.2)

    def is_right(value):
        logits, heatmaps = program(torch.full((1, 3, 1, 1), float(value)))
        return float(logits[0, 0]) == float(heatmaps[0, 0, 0]) == value

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(is_right, range(2000)))
    finally:
        sys.setswitchinterval(interval)
    images = torch.ones(1, 3, 1, 1)
    assert float(program(images)[0][0, 0]) == 1
    assert float(program(images.zero_())[0][0, 0]) == 0
    with pytest.raises(ValueError, match="runs on the CPU, not on cuda"):
        Localizer(program, device="cuda")
    with pytest.raises(ValueError, match="leave method out"):
        Localizer(program, "gradient")
    assert Localizer(program).threshold == 0.2
    assert Localizer(program, threshold=0.5).threshold == 0.5


@pytest.mark.ci
def test_the_example_finds_the_box_with_onnxruntime_and_opencv_alone(exported, toy, tmp_path):
    jpeg = sorted((toy / "images").rglob("*.jpg"))[0]
    for size in ((20, 31), (90, 25)):  # enlarged, both
        photo = tmp_path / "photo.png"
        Image.open(jpeg).convert("RGB").resize(size).save(photo)
        (ours,) = Localizer.load(exported, "gradient").predict([photo])
        code = (ROOT / "docs" / "run_onnx.py").read_text()
        program, boxed = exported / "localizer.onnx", tmp_path / "boxed.png"
        without = "torch timm wsol robust_training albumentations"
        name, *box = run_elsewhere(code, program, photo, boxed, without=without).rsplit(maxsplit=4)
        assert name == ours.class_name
        np.testing.assert_allclose([float(end) for end in box], ours.box, atol=1e-6)
        drawn = np.asarray(Image.open(boxed)) != np.asarray(Image.open(photo))
        assert drawn.any()


def test_the_example_says_in_one_line_what_it_takes():
    command = [sys.executable, ROOT / "docs" / "run_onnx.py", "localizer.onnx", "photo.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "usage: python run_onnx.py localizer.onnx photo.jpg boxed.png\n"


_TIMM = """
import sys
import numpy as np, timm, torch
folder, names = sys.argv[1], sys.argv[2:]
images = torch.from_numpy(np.load(f"{folder}/images.npy"))
for name in names:
    place = f"local-dir:{folder}/{name}"
    model = timm.create_model(place, pretrained=True).eval()
    config = timm.data.resolve_data_config({}, model=model)
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    assert config["input_size"] == tuple(images.shape[1:])
    with torch.no_grad():
        logits = model((images - mean) / std)
        stages = timm.create_model(place, pretrained=True, features_only=True).eval()(images)
    assert len(stages) > 1 and all(map(torch.is_tensor, stages))
    np.save(f"{folder}/{name}.npy", logits.numpy())
assert not {"wsol", "robust_training"} & set(sys.modules)
"""


@pytest.mark.ci
def test_model_folders_open_in_plain_timm(tmp_path):
    images = torch.rand(2, 3, SIDE, SIDE)
    np.save(tmp_path / "images.npy", images.numpy())
    expected = {}
    for name in (
        "test_resnet",
        "mobilenetv2_035",
        "test_efficientnet",
        "test_convnext",
        "test_vit",
    ):
        model = create_model(name, 4, image_size=SIDE).eval()
        stirred(model.backbone)
        save_model(model, tmp_path / name)
        expected[name] = model(images).detach()
    run_elsewhere(_TIMM, tmp_path, *expected)
    for name, logits in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), logits, atol=1e-5)


@pytest.mark.ci
def test_the_card_says_how_it_was_trained_and_what_it_scored(exported, toy):
    card = (exported / "best" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: timm\n")
    for line in (
        f"* Data: {toy.name}, image labels alone",
        "Method: ART",
        "| gradient | val (0.37) | 25.0 | 25.0 | 25.0 | 50.",
    ):
        assert line in card
    assert str(exported) not in card
