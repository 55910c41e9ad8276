import inspect
import json

import numpy as np
import pytest
import torch
from PIL import Image

from robust_training.models.creating import create_model
from robust_training.models.saving import load_model, save_model
from wsol.annotations.coco_writing import coco_dataset
from wsol.boxes.geometry import rescale
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.detectors import Detections, FasterRCNN, Network, Regressor, save_detector
from wsol.detectors.training import detect
from wsol.evaluation.run_model import run_model
from wsol.evaluation.scores import score_heatmaps
from wsol.evaluation.split_selection import prepare_split
from wsol.heatmaps.heatmap import CAM, CentredBox, Gradient, HeatmapMethod
from wsol.heatmaps.refined import Refined
from wsol.localizer.localization import Localization
from wsol.localizer.localizer import Localizer
from wsol.localizer.overlay import blend, heat_layer
from wsol.localizer.predictors import BoxPredictor, Prediction
from wsol.report.score_tables import table


class Bright(HeatmapMethod):
    """A planted map: the brightness of the image."""

    def __call__(self, model, image, label):
        gray = image.mean(dim=1).double().numpy()
        return (gray - gray.min()) / (gray.max() - gray.min())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=48).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    model.class_names = ["ant", "bee", "cat", "dog"]
    return model


def white_square(width=90, height=60, box=(30, 12, 60, 48)):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return pixels


class BrightDetector(Network):
    """Planted boxes: those of the bright pixels, and the whole image as a less likely bee."""

    predicts_classes = True

    def __init__(self, classifier):
        super().__init__(Regressor(), classifier, classifier.class_names)

    def forward(self, image):
        return [self._find(each) for each in image.mean(dim=1) > 0.5]

    def _find(self, bright):
        edges = [torch.nonzero(bright.any(dim=axis))[[0, -1], 0] for axis in (0, 1)]
        (x0, x1), (y0, y1) = (each.tolist() for each in edges)
        box = torch.tensor([x0, y0, x1 + 1, y1 + 1]) / len(bright)
        boxes = torch.stack([box, torch.tensor([0.0, 0, 1, 1]), box / 2])
        return Detections(boxes, torch.tensor([2, 1, 2]), torch.tensor([0.9, 0.5, 0.3]))

    def losses(self, image, box, label):
        raise NotImplementedError


@pytest.fixture(scope="module", params=["heatmap", "detector"])
def localizer(request, model):
    if request.param == "heatmap":
        return Localizer(model, Bright(), 0.5)
    return Localizer(BrightDetector(model))


@pytest.mark.parametrize(("width", "height"), [(90, 60), (61, 300), (2000, 100)])
def test_boxes_come_back_in_the_images_own_pixels(localizer, model, width, height):
    box = (width // 3, height // 5, 2 * width // 3, 4 * height // 5)
    (found,) = localizer.predict([white_square(width, height, box)])
    cell = np.array([width, height] * 2) / 48
    assert (np.abs(np.array(found.box) - box) <= np.maximum(2, 1.2 * cell)).all()
    assert found.size == (width, height)
    assert found.class_name == model.class_names[found.label]
    assert 0 < found.score <= 1


def test_a_turned_photo_is_localized_as_viewers_show_it(localizer, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    turned = np.rot90(white_square(), 1)
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.png", exif=exif)
    (found,) = localizer.predict([tmp_path / "a.png"])
    np.testing.assert_allclose(found.box, (30, 12, 60, 48), atol=2)


def test_one_by_one_equals_a_batch_equals_evaluation(model, toy):
    data = CUB200(toy, "test")
    paths = [example.path for example in data.examples]
    localizer = Localizer(model, Gradient(), 0.3)
    batch = list(localizer.predict(paths, batch_size=20))
    single = list(localizer.predict(paths, batch_size=1))
    loader = DataConfig(str(toy), image_size=48, num_workers=0).loader("test")
    items = next(iter(loader))
    label = model(items["image"]).argmax(1)
    heatmaps = Gradient()(model, items["image"], label)
    for one, many, heatmap, index in zip(single, batch, heatmaps, label.tolist(), strict=True):
        assert one.label == many.label == index
        np.testing.assert_allclose(one.heatmap, many.heatmap, atol=1e-4)
        np.testing.assert_allclose(many.heatmap, heatmap, atol=1e-6)
        expected = rescale(largest_boxes(heatmap, [0.3]), (48, 48), many.size)[0]
        np.testing.assert_allclose(many.box, expected)


@pytest.mark.parametrize("settings", [Regressor(width=8), FasterRCNN(levels=2, width=8)])
def test_a_detectors_folder_gives_the_boxes_that_are_scored(settings, toy, tmp_path):
    torch.manual_seed(0)
    classifier = create_model("test_resnet", 4, image_size=48)
    network = settings.build(classifier, ["ant", "bee", "cat", "dog"]).eval()
    body = set(classifier.parameters())
    for parameter in (each for each in network.parameters() if each not in body):
        torch.nn.init.normal_(parameter, std=0.3)  # other boxes for other images
    config = DataConfig(str(toy), image_size=48, num_workers=0)
    scored = detect(network, config.loader("test"))
    assert not scored[0].boxes[0].equal(scored[1].boxes[0])
    save_detector(network, tmp_path / "detector")
    paths = [example.path for example in config.dataset("test").examples]
    detector = Localizer.load(tmp_path / "detector")
    batch = detector.predict(paths, batch_size=20, boxes=3)
    single = detector.predict(paths, batch_size=1, boxes=3)
    for one, many, each in zip(single, batch, scored, strict=True):
        label = None if each.labels is None else int(each.labels[0])
        boxes, scores = (each.boxes, each.scores) if label is None else each.of_class(label)
        expected = rescale(boxes[:3].double().numpy(), (1, 1), many.size)
        np.testing.assert_allclose(many.boxes, expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(one.boxes, many.boxes, rtol=0, atol=1e-3)
        assert one.label == many.label == label
        assert many.score == pytest.approx(float(scores[0]), abs=1e-6)
        assert one.score == pytest.approx(many.score, abs=1e-4)
        assert len(many.scores) == len(many.boxes)
        assert many.class_name == ("object" if label is None else network.class_names[label])
        assert (many.heatmap, one.path) == (None, many.path)
    for option in ({"method": "gradient"}, {"threshold": 0.3}):
        with pytest.raises(ValueError, match="leave out method and threshold"):
            Localizer.load(tmp_path / "detector", **option)
    with pytest.raises(ValueError, match="without a heatmap"):
        many.full_heatmap()
    message = (
        "no class 'amt'; did you mean .*ant"
        if detector.model.predicts_classes
        else "predicts no classes"
    )
    with pytest.raises(ValueError, match=message):
        detector.predict(paths, label="amt")


def test_a_detector_looks_for_the_class_that_is_asked_for(model):
    detector, image = Localizer(BrightDetector(model)), white_square()
    likeliest, bee, none = detector.predict([image] * 3, label=[None, "bee", "dog"], boxes=5)
    assert (likeliest.class_name, len(likeliest.boxes)) == ("cat", 2)
    assert likeliest.scores == pytest.approx((0.9, 0.3))
    assert (bee.boxes, bee.score, bee.label) == (((0, 0, 90, 60),), 0.5, 1)
    assert (none.boxes, none.class_name, none.score) == ((likeliest.box,), "dog", 0)


def test_every_kind_of_model_is_loaded_as_a_localizer_with_the_same_arguments(model, tmp_path):
    parameters = [
        [
            p
            for p in inspect.signature(make).parameters.values()
            if p.name not in ("model", "folder")
        ]
        for make in (Localizer, Localizer.load)
    ]
    assert parameters[0] == parameters[1]
    save_model(model, tmp_path / "classifier")
    save_detector(
        Regressor(width=8).build(load_model(tmp_path / "classifier"), ["a"]), tmp_path / "detector"
    )
    classifier = Localizer.load(tmp_path / "classifier", "refined_cam", 0.4)
    detector = Localizer.load(tmp_path / "detector", device="cpu")
    assert type(classifier) is type(detector) is Localizer
    assert classifier.method == Localizer(model, "refined cam").method == Refined(CAM())
    assert (classifier.threshold, Localizer(model).threshold) == (0.4, 0.2)
    assert (detector.method, detector.threshold, detector.class_names) == (None, None, ["object"])
    own = f"{__name__}.Bright"
    assert type(Localizer.load(tmp_path / "classifier", own).method).__name__ == "Bright"


def test_a_box_predictor_of_ones_own_localizes():
    def predict(images, labels, count):
        return [Prediction(np.array([[0.25, 0.25, 0.75, 0.75]]), [0.5], (1, 1), 0) for _ in images]

    middle = BoxPredictor(None, 8, ["thing"], predict)
    (found,) = Localizer(middle).predict(white_square(80, 40))
    assert (found.box, found.class_name, found.score) == ((20, 10, 60, 30), "thing", 0.5)


def test_load_takes_a_run_and_its_chosen_threshold(model, tmp_path):
    save_model(model, tmp_path / "run" / "best")
    assert Localizer.load(tmp_path / "run").threshold == 0.2
    row = {"heatmap": "refined gradient", "policy": "val", "threshold": 0.37}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({"localization": [row]}))
    assert Localizer.load(tmp_path / "run").threshold == 0.37
    assert Localizer.load(tmp_path / "run", threshold=0.5).threshold == 0.5
    best = Localizer.load(tmp_path / "run" / "best")
    assert (best.threshold, best.model.class_names) == (0.37, model.class_names)
    assert Localizer.load(tmp_path / "run", method=Bright()).threshold == 0.2
    plain = tmp_path / "run" / "plain"  # a model folder beside somebody else's metrics
    save_model(model, plain)
    assert Localizer.load(plain).threshold == 0.2
    (plain / "metrics.json").write_text(json.dumps({"localization": [row | {"threshold": 0.4}]}))
    assert Localizer.load(plain).threshold == 0.4
    (tmp_path / "run" / "metrics.json").write_text("[]")
    with pytest.raises(ValueError, match="not the metrics file"):
        Localizer.load(tmp_path / "run")
    with pytest.raises(ValueError, match="is not a model folder"):
        Localizer.load(tmp_path)


def test_what_is_no_image_is_refused(model):
    localizer = Localizer(model)
    with pytest.raises(ValueError, match=r"an image array is \(H,W,3\)"):
        list(localizer.predict([np.zeros((4, 4, 5), np.uint8)]))
    with pytest.raises(ValueError, match="cannot read image nowhere.jpg"):
        list(localizer.predict(["nowhere.jpg"]))
    for wrong, name in ((None, "NoneType"), (3, "int"), ([{}], "dict")):
        with pytest.raises(ValueError, match=f"an image is a path, .* not {name}"):
            list(localizer.predict(wrong))


def test_coco_boxes_open_in_pycocotools(tmp_path):
    from pycocotools.coco import COCO

    heatmap = np.ones((4, 4))
    found = [
        ("a.jpg", Localization((1, 2, 11, 7), 1, "bee", 0.75, heatmap, (20, 10))),
        ("b.jpg", Localization((0, 0, 0, 0), 0, "ant", 0.5, heatmap, (8, 8))),
    ]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(coco_dataset(found, ["ant", "bee"])))
    coco = COCO(str(file))
    (annotation,) = coco.loadAnns(coco.getAnnIds())
    assert annotation["bbox"] == [1, 2, 10, 5]
    assert annotation["score"] == 0.75
    assert coco.loadCats([annotation["category_id"]])[0]["name"] == "bee"
    assert len(coco.getImgIds()) == 2
    results = coco.loadRes([{**annotation}])
    assert len(results.getAnnIds()) == 1


def test_a_heatmap_veils_nothing_where_it_is_low():
    ramp = np.tile(np.linspace(0, 1, 64), (64, 1))
    photo = np.full((64, 64, 3), 90, np.uint8)
    change = np.abs(blend(photo, ramp).astype(int) - photo).max(axis=2)[32]
    assert change[:20].max() <= 15
    assert (np.diff(change[8:]) >= 0).all()
    assert change[-1] > 100
    layer = heat_layer(ramp)
    assert layer.shape == (64, 64, 4)
    assert layer[..., 3].max() < 255  # the photo shows through


class Planted(HeatmapMethod):
    """Knows the answer: the mask of each image's box, in the loader's order."""

    def __init__(self, boxes):
        self.boxes = iter(boxes)

    def __call__(self, model, image, label):
        heatmaps = np.zeros((len(image), *image.shape[2:]))
        for heatmap in heatmaps:
            x0, y0, x1, y1 = next(self.boxes)
            heatmap[int(y0) : int(y1), int(x0) : int(x1)] = 1
        return heatmaps


def test_a_planted_map_scores_one_and_the_baseline_does_not(model, toy):
    config = DataConfig(str(toy), image_size=48, batch_size=7, num_workers=0)
    data = config.dataset("test")
    methods = {
        "planted": Planted([example.boxes[0] for example in data.examples]),
        "centred box": CentredBox(),
    }
    thresholds = np.array([0.1, 0.2, 0.5])
    test = run_model(model, prepare_split(config.loader("test")), methods, thresholds=thresholds)
    result = score_heatmaps(test, thresholds=thresholds, fixed=0.2).metrics
    rows = {(row["heatmap"], row["policy"]): row for row in result["localization"]}
    assert set(rows) == {(m, p) for m in methods for p in ("fixed:0.2", "oracle", "reference")}
    for policy in ("oracle", "reference"):
        assert rows["planted", policy]["gt_known_loc"] == 1
        assert rows["centred box", policy]["gt_known_loc"] < 0.5
    assert rows["planted", "fixed:0.2"]["top1_loc"] == result["top1_accuracy"]
    assert result["reference"]["planted"]["max_box_acc_v2"] == 1
    assert result["headline"]["planted"]["errors"]["right"] == result["top1_accuracy"]
    assert result["pixels"]["planted"]["pxap"] > result["pixels"]["centred box"]["pxap"]
    assert "| planted | oracle" in table({"run": result})


def test_the_validation_policy_never_looks_at_the_test_images(model, toy):
    config = DataConfig(str(toy), image_size=48, val_fraction=0.2, num_workers=0)
    methods = {"gradient": Gradient()}
    thresholds = np.arange(0, 1, 0.01)
    validation, test = (
        run_model(model, prepare_split(config.loader(split)), methods, thresholds=thresholds)
        for split in ("val", "test")
    )
    chosen = score_heatmaps(test, validation, thresholds=thresholds).metrics["localization"][0]
    assert chosen["policy"] == "val"
    ious = validation.tables["gradient"].ious(validation.truth, thresholds)
    accuracy = (ious >= 0.5).mean(axis=0)
    at_chosen = validation.tables["gradient"].ious(validation.truth, [chosen["threshold"]])
    assert (at_chosen >= 0.5).mean() == accuracy.max()
    hits = test.tables["gradient"].ious(test.truth, [chosen["threshold"]]) >= 0.5
    assert chosen["gt_known_loc"] == hits.mean()
