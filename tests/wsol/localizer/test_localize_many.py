"""Inputs and options of Localizer.predict."""

import json
import weakref

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models._hub import save_for_hf

from robust_training.models.creating import create_model, wrap_model
from robust_training.models.saving import save_model
from tests.wsol.localizer.test_localizer import Bright, white_square
from wsol.annotations.coco_writing import coco_dataset
from wsol.boxes.heatmap_boxes import outer_boxes, to_float32
from wsol.heatmaps.heatmap import CAM, Gradient
from wsol.heatmaps.refined import Refined
from wsol.localizer.localizer import Localizer

BOX = (30, 12, 60, 48)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=48).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    model.class_names = ["ant", "bee", "cat", "dog"]
    return model


@pytest.fixture(scope="module")
def localizer(model):
    return Localizer(model, Bright(), 0.5)


def test_one_image_in_every_form_has_one_box(localizer, tmp_path):
    pixels = white_square()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    forms = {
        "text": str(tmp_path / "a.png"),
        "path": tmp_path / "a.png",
        "folder": tmp_path,
        "PIL": Image.open(tmp_path / "a.png"),
        "array": pixels,
        "arrays": pixels[None],
        "tensor": tensor,
        "tensors": tensor[None],
        "list": [pixels],
        "generator": (each for each in [tensor]),
    }
    for name, form in forms.items():
        (found,) = localizer.predict(form)
        np.testing.assert_allclose(found.box, BOX, atol=2, err_msg=name)
        assert found.size == (90, 60)
        assert found.full_heatmap().shape == (60, 90)
        assert (found.path == tmp_path / "a.png") == (name in ("text", "path", "folder"))


def test_a_tensor_of_the_networks_size_is_taken_as_it_is(model):
    image = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(1))
    (found,) = Localizer(model, "gradient").predict(image)
    label = torch.tensor([found.label])
    exact = Gradient()(model, image[None], label)[0]
    np.testing.assert_array_equal(found.heatmap, to_float32(exact))
    assert (found.heatmap.dtype, found.full_heatmap().dtype) == (np.float32, np.float32)
    for heatmap in (exact, found.heatmap):  # the box is the same from either
        assert outer_boxes(heatmap, 0.2)[0].tolist() == list(found.box)


def test_a_folder_is_searched_to_the_bottom_in_order(localizer, tmp_path):
    for name in ("b.jpg", "deep/er/a.PNG", "a.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(white_square()).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = [place.path for place in localizer.predict(tmp_path)]
    assert found == [tmp_path / name for name in ("a.webp", "b.jpg", "deep/er/a.PNG")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there are no images in .*empty"):
        next(localizer.predict(tmp_path / "empty"))


@pytest.mark.parametrize("size", [(600, 20), (20, 600), (48, 48), (7, 400), (1, 50)])
def test_boxes_fit_any_aspect_ratio(localizer, size):
    """A bright half of the image is found, to one cell of the network's grid."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: (height + 1) // 2] = 255
    pixels[0] = 255
    (found,) = localizer.predict(pixels)
    expected = (0, 0, width, (height + 1) // 2)
    np.testing.assert_allclose(found.box, expected, atol=1.5 * max(1, height / 48))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_camera_orientation(localizer, tmp_path, orientation):
    stored_as = {
        **{1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1]},
        **{4: lambda p: p[::-1], 5: lambda p: p.transpose(1, 0, 2)},
        **{6: lambda p: np.rot90(p, 1), 7: lambda p: p[::-1, ::-1].transpose(1, 0, 2)},
        8: lambda p: np.rot90(p, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(stored_as[orientation](white_square()))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    (found,) = localizer.predict(tmp_path / "a.png")
    np.testing.assert_allclose(found.box, BOX, atol=2)
    assert found.size == (90, 60)


def test_a_class_may_be_asked_for(model):
    image = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(2))
    localizer = Localizer(model, "gradient")
    with torch.no_grad():
        probability = model(image[None]).softmax(1)[0]
    predicted = int(probability.argmax())
    for labels, expected in (
        (None, [predicted, predicted]),
        ("dog", [3, 3]),
        ("1", [1, 1]),
        (np.int64(3), [3, 3]),
        (["bee", None], [1, predicted]),
    ):
        found = list(localizer.predict([image, image], label=labels, batch_size=1))
        assert [place.label for place in found] == expected
        assert [place.class_name for place in found] == [model.class_names[i] for i in expected]
        for place in found:
            assert place.score == pytest.approx(float(probability[place.label]), abs=1e-6)
            heatmap = Gradient()(model, image[None], torch.tensor([place.label]))[0]
            np.testing.assert_allclose(place.heatmap, heatmap, atol=1e-6)
    for labels, message in (
        ("dgo", "has no class 'dgo'; did you mean dog"),
        (4, "class 4 is not in 0 to 3"),
        ([0], "fewer labels than images"),
        ([0] * 3, "more labels than images"),
    ):
        with pytest.raises(ValueError, match=message):
            list(localizer.predict([image, image], label=labels, batch_size=1))


def test_a_class_name_in_another_spelling_and_one_of_two_classes():
    plain = timm.create_model("test_resnet", num_classes=4)
    names = ["\u00e9", "crane", "crane", "e"]
    localizer = Localizer(wrap_model(plain, image_size=32, class_names=names))
    assert next(localizer.predict(torch.rand(3, 32, 32), label="e\u0301")).label == 0
    with pytest.raises(ValueError, match=r"2 classes are called 'crane': give one of \[1, 2\]"):
        next(localizer.predict(torch.rand(3, 32, 32), label="crane"))


def test_several_boxes_in_each_image(localizer):
    pixels = white_square()
    pixels[5:50, 70:85] = 255
    pixels[54:58, 2:12] = 255
    expected = [(30, 12, 60, 48), (70, 5, 85, 50), (2, 54, 12, 58)]
    (found,) = localizer.predict(pixels, boxes=2)
    assert found.box == found.boxes[0]
    np.testing.assert_allclose(found.boxes, expected[:2], atol=2)
    (found,) = localizer.predict(pixels, boxes=9)
    np.testing.assert_allclose(found.boxes, expected, atol=2)
    coco = coco_dataset([("a.jpg", found)], localizer.model.class_names)
    assert [a["image_id"] for a in coco["annotations"]] == [1, 1, 1]
    assert len({a["id"] for a in coco["annotations"]}) == 3


def test_what_cannot_be_read_is_left_out_where_that_is_wanted(localizer, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    images = [white_square(), tmp_path / "broken.jpg", tmp_path / "gone.png", white_square(50, 50)]
    skipped = []
    found = list(
        localizer.predict(images, label=[0, 1, 2, 3], batch_size=1, on_unreadable=skipped.append)
    )
    assert [(place.size, place.label) for place in found] == [((90, 60), 0), ((50, 50), 3)]
    assert ["broken.jpg" in str(skipped[0]), "gone.png" in str(skipped[1])] == [True, True]
    with pytest.raises(ValueError, match="broken.jpg"):
        list(localizer.predict(images))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), r"is \(H,W,3\) RGB, .* not uint8 \(0, 5, 3\)"),
        (np.zeros((5, 5, 3), int), r"not int64 \(5, 5, 3\)"),
        (np.full((5, 5), 255.0), r"must lie in \[0,1\] .*: divide values up to 255"),
        (torch.zeros(3, 0, 4), r"tensor is \(3,H,W\) RGB, .* not float32 \(3, 0, 4\)"),
        (torch.full((3, 4, 4), 255.0), r"must lie in \[0,1\]"),
        (torch.full((3, 4, 4), float("nan")), "hold no NaN"),
        ([7], "not int"),
    ],
)
def test_what_is_no_image_costs_one_clear_line(localizer, image, message):
    with pytest.raises(ValueError, match=message) as caught:
        list(localizer.predict(image))
    assert "\n" not in str(caught.value)


def test_a_model_from_timm_alone_localizes(tmp_path):
    """In training mode, as `create_model` leaves it: BatchNorm must not mix images."""
    torch.manual_seed(0)
    model = create_model("resnet10t", 5, image_size=64)
    torch.nn.init.normal_(model.backbone.fc.weight)
    images = np.random.default_rng(0).integers(256, size=(2, 70, 90, 3), dtype=np.uint8)
    both = list(Localizer(model).predict(images))
    (single,) = Localizer(model).predict(images[1])
    assert single.box == both[1].box
    assert (both[0].class_name, both[0].size) == (str(both[0].label), (90, 70))
    plain = timm.create_model("resnet10t", num_classes=5)
    plain.load_state_dict(model.backbone.state_dict())
    save_for_hf(
        plain, tmp_path, model_config={"label_names": list("abcde")}, safe_serialization=True
    )
    image = torch.rand(3, 64, 64)
    loaded = Localizer.load(tmp_path)
    (named,) = loaded.predict(image)
    assert named.class_name == "abcde"[named.label]
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)  # names come with it
    for wrapped in (wrap_model(plain, class_names="abcde"), wrap_model(again)):
        (ours,) = Localizer(wrapped).predict(image)
        assert (ours.box, ours.class_name) == (named.box, named.class_name)
        assert ours.score == named.score
        np.testing.assert_array_equal(ours.heatmap, named.heatmap)
        assert wrapped.image_size == loaded.model.image_size == 176


def test_a_localizer_changes_no_statistics_of_a_network_in_training_mode():
    model = create_model("test_resnet", 3, image_size=32)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    Localizer(model, "cam")
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_what_is_no_classifier_is_not_wrapped():
    plain = timm.create_model("test_resnet", num_classes=3)
    assert Localizer(wrap_model(plain, image_size=32)).image_size == 32
    for wrong, options, message in (
        (torch.nn.Linear(2, 2), {}, "Linear is not a timm model: give its mean and std"),
        (plain, {"class_names": ["a"]}, "must be 3 texts"),
        (plain, {"image_size": 0}, "image_size must be 1 to 8192 pixels, not 0"),
        (timm.create_model("test_resnet", in_chans=1), {}, "cannot take RGB images of 160 x 160"),
    ):
        with pytest.raises(ValueError, match=message):
            wrap_model(wrong, **options)
    plain.reset_classifier(0)
    with pytest.raises(ValueError, match="has no classes to localize"):
        Localizer(wrap_model(plain))
    with pytest.raises(ValueError, match="not a Classifier.* robust_training.wrap_model"):
        Localizer(timm.create_model("test_resnet", num_classes=3))


def test_weights_that_are_not_finite_find_nothing():
    plain = timm.create_model("test_resnet", num_classes=3)
    torch.nn.init.constant_(plain.get_classifier().weight, float("nan"))
    with pytest.raises(ValueError, match="probabilities are not finite"):
        next(Localizer(wrap_model(plain, image_size=32)).predict(torch.rand(3, 32, 32)))


def test_a_method_by_name_has_its_own_threshold(model, tmp_path):
    save_model(model, tmp_path / "best")
    rows = [
        {"heatmap": "refined gradient", "policy": "val", "threshold": 0.6},
        {"heatmap": "cam", "policy": "oracle", "threshold": 0.7},
        {"heatmap": "somebody's maps", "policy": "val", "threshold": 0.8},
    ]
    (tmp_path / "metrics.json").write_text(json.dumps({"localization": rows}))
    refined = Localizer.load(tmp_path, method="refined_gradient")
    assert (refined.method, refined.threshold) == (Refined(Gradient()), 0.6)
    assert Localizer.load(tmp_path, method=Refined(Gradient())).threshold == 0.6
    assert Localizer.load(tmp_path, method="cam").threshold == 0.2
    with pytest.raises(ValueError, match="no heatmap method 'gradcamm'"):
        Localizer.load(tmp_path, method="gradcamm")
    with pytest.raises(ValueError, match="does not work with"):
        Localizer(create_model("test_vit", 4, image_size=32), CAM())
    with pytest.raises(ValueError, match="threshold must lie in"):
        Localizer(model, threshold=1.5)


def test_a_folder_that_holds_no_model_says_what_is_missing(model, tmp_path):
    save_model(model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no model.safetensors in it"):
        Localizer.load(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="model.safetensors"):
        Localizer.load(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text('{"architecture": "resnet1O"}')
    with pytest.raises(ValueError, match="cannot build the model"):
        Localizer.load(tmp_path / "m")


class Watched(Bright):
    """Counts those of its batches of maps that somebody still holds."""

    def __init__(self):
        self.made = []

    def __call__(self, model, image, label):
        heatmaps = super().__call__(model, image, label)
        self.made.append(weakref.ref(heatmaps))
        return heatmaps

    def held(self):
        return sum(reference() is not None for reference in self.made)


def test_heatmaps_given_out_and_dropped_are_gone(model):
    method, pixels = Watched(), white_square()
    found = Localizer(model, method, 0.5).predict((pixels for _ in range(12)), batch_size=2)
    for number, _ in enumerate(found):
        assert method.held() <= 2
        assert len(method.made) == number // 2 + 1  # no batch before it is wanted
    assert len(method.made) == 6
