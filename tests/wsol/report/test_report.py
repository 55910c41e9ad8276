"""The report in a browser."""

import itertools
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robust_training.attacks.map_attack import MapAttack
from robust_training.attacks.pgd import PGD
from robust_training.models.creating import create_model
from tests.helpers.browser import Page
from tests.helpers.commands import page_data
from wsol.boxes.geometry import iou, rescale
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.data.names import titles
from wsol.evaluation.results import Evaluation
from wsol.evaluation.run_model import run_model
from wsol.evaluation.scores import score_heatmaps
from wsol.evaluation.split_selection import prepare_split
from wsol.heatmaps.heatmap import CAM, CentredBox, Gradient
from wsol.report import write_report
from wsol.report.plots import training_charts

SHOWN = ("gradient", "cam")
THRESHOLDS = np.arange(0, 1, 0.01)
IN_FILES = "</script><script>window.broken=1</script><!--<img src=x onerror=broken=1>\"'&amp;$x"
HOSTILE = f"{IN_FILES}\u2028`${{broken}}"  # a line break to JavaScript, and to text files


@pytest.fixture(scope="module")
def scored(toy, tmp_path_factory):
    """An evaluation with hostile names, and its heatmaps."""
    root = tmp_path_factory.mktemp("hostile") / "data"
    shutil.copytree(toy, root)
    folder = CUB200(root, "test").root
    classes = (folder / "classes.txt").read_text().splitlines()
    (folder / "classes.txt").write_text("\n".join(["1 " + IN_FILES, *classes[1:]]))
    name = CUB200(root, "test").examples[0].name
    (folder / "images" / f"{IN_FILES}.jpg").parent.mkdir(parents=True)
    (folder / "images" / name).rename(folder / "images" / f"{IN_FILES}.jpg")
    images = (folder / "images.txt").read_text()
    (folder / "images.txt").write_text(images.replace(name, f"{IN_FILES}.jpg"))

    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    data = DataConfig(str(root), image_size=32, num_workers=0)
    loader = data.loader("test")
    methods = {"gradient": Gradient(), "cam": CAM(), "centred box": CentredBox()}
    output = run_model(model, prepare_split(loader), methods)
    scores = score_heatmaps(output, output, thresholds=THRESHOLDS)
    (root / "log.csv").write_text("epoch,lr,val_loss\n1,0.1,2.5\n2,0.1,nan\n3,0.05,1.5\n")
    evaluation = Evaluation(
        metrics=scores.metrics,
        headlines=scores.headlines,
        output=output,
        name="run",
        model=model,
        methods=methods,
        dataset=loader.dataset,
        folder=root,
    )
    (batch,) = loader
    maps = {name: methods[name](model, batch["image"], batch["label"]) for name in SHOWN}
    return evaluation, maps


@pytest.fixture(scope="module")
def report(scored, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(file, {HOSTILE: scored[0], "again": scored[0]}, images=12)
    return file


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    page = Page(tmp_path_factory.mktemp("profile"))
    page.resize(1440, 900)
    page.open(report)
    yield page
    page.close()


def reading(scored, name, index, threshold):
    """Box in the file's pixels and IoU, computed from the heatmap."""
    evaluation, maps = scored
    heatmap, size = maps[name][index], evaluation.output.truth.sizes[index]
    box = rescale(largest_boxes(heatmap, [threshold]), heatmap.shape[::-1], size)[0]
    return box, float(iou(box, evaluation.dataset.examples[index].boxes[0]))


def shown_box(page):
    names = "['x', 'y', 'width', 'height']"
    rect = "document.querySelector('#stage .predicted')"
    x, y, width, height = page.script(f"{names}.map((name) => Number({rect}.getAttribute(name)))")
    return [x, y, x + width, y + height]


def choose_option(page, select, value):
    page.script(
        f"{{ const s = document.getElementById('{select}'); s.value = {json.dumps(str(value))};"
        "s.dispatchEvent(new Event('change')); }"
    )


def shown_names(page):
    return page.script("[...document.querySelectorAll('.thumb')].map((t) => t.image.name)")


def test_the_slider_shows_the_boxes_of_python(scored, page):
    evaluation, _ = scored
    names = [example.name for example in evaluation.dataset.examples]
    for number, name in enumerate(SHOWN):
        choose_option(page, "map", number)
        chosen = evaluation.headlines[number].row.threshold
        assert page.script("state.thresholds[state.map]") == chosen
        for order, threshold in itertools.product(
            ("best", "worst"), (0, 0.1, 0.355, 0.8, 0.999, 1)
        ):
            choose_option(page, "order", order)
            page.script(
                "{ const s = document.getElementById('threshold');"
                f"s.value = {threshold}; s.dispatchEvent(new Event('input')); }}"
            )
            page.script("document.querySelector('.thumb').click()")
            index = names.index(page.script("document.getElementById('file').textContent"))
            box, overlap = reading(scored, name, index, threshold)
            np.testing.assert_allclose(shown_box(page), box, atol=1e-9)
            verdict = page.script("document.getElementById('verdict').textContent")
            assert (
                verdict
                == f"IoU {int(100 * overlap) / 100:.2f}, a {'hit' if overlap >= 0.5 else 'miss'}"
            )
            shown = [names.index(each) for each in shown_names(page)]
            hits = sum(reading(scored, name, each, threshold)[1] >= 0.5 for each in shown)
            text = page.script("document.getElementById('hits').textContent")
            assert text == f", {hits} {'hit' if hits == 1 else 'hits'} at this threshold"
    assert page.complaints == []


def test_an_image_is_shown_with_every_map_at_its_threshold(scored, page):
    names = list(scored[0].output.truth.names)
    index = names.index(page.script("state.image.name"))
    thresholds = page.script("state.thresholds")
    captions = page.script("[...document.querySelectorAll('.other')].map((b) => b.innerText)")
    assert len(captions) == 2 * len(SHOWN)
    runs = itertools.product((HOSTILE, "again"), SHOWN)
    for text, threshold, (run, name) in zip(captions, thresholds, runs, strict=True):
        overlap = reading(scored, name, index, threshold)[1]
        mark = "✓" if overlap >= 0.5 else "✗"
        assert text.split("\n")[-1] == f"{mark} {int(100 * overlap) / 100:.2f}"
        assert text.startswith(run[:8])
        assert f": {name}" in text
    page.script("document.querySelectorAll('.other')[3].click()")
    assert page.script("state.map") == 3
    assert page.script("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_keys_move_the_slider_and_the_gallery(scored, page):
    evaluation, _ = scored
    names = [example.name for example in evaluation.dataset.examples]
    choose_option(page, "map", 0)
    choose_option(page, "order", "split")
    page.script("document.getElementById('reset').click()")  # gives the slider the focus
    before = page.script("state.thresholds[0]")
    for _ in range(3):
        page.press("ArrowRight", 39)
    after = page.script("state.thresholds[0]")
    assert after == pytest.approx(before + 0.003, abs=1e-3)
    index = names.index(page.script("state.image.name"))
    np.testing.assert_allclose(
        shown_box(page), reading(scored, "gradient", index, after)[0], atol=1e-9
    )
    assert page.script("document.getElementById('threshold').ariaValueText").startswith(
        f"{after:.3f}"
    )
    assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    page.script("document.querySelector('.thumb').click()")
    page.script("document.querySelector('.thumb[tabindex=\"0\"]').focus()")
    columns = page.script(
        "getComputedStyle(document.getElementById('thumbs')).gridTemplateColumns.split(' ').length"
    )
    order = shown_names(page)
    assert len(order) == 12
    assert order == sorted(order, key=names.index)
    for key, code, place in (
        ("ArrowRight", 39, 1),
        ("ArrowRight", 39, 2),
        ("ArrowLeft", 37, 1),
        ("ArrowDown", 40, 1 + columns),
        ("ArrowUp", 38, 1),
        ("End", 35, 11),
        ("ArrowRight", 39, 11),
        ("Home", 36, 0),
    ):
        page.press(key, code)
        assert page.script("document.activeElement.image.name") == order[place], key
        assert page.script("document.getElementById('file').textContent") == order[place]
        selected = "[...document.querySelectorAll('.thumb[aria-selected=true]')]"
        assert page.script(f"{selected}.map((thumb) => thumb.image.name)") == [order[place]]
    assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_filters_keep_the_matching_images(scored, page):
    evaluation, _ = scored
    truth = evaluation.output.truth
    names = list(truth.names)
    for number, _ in enumerate(SHOWN):
        choose_option(page, "map", number)
        choose_option(page, "kind", "")
        choose_option(page, "class", "")
        everything = shown_names(page)
        kinds = dict(zip(names, evaluation.headlines[number].error_types, strict=True))
        offered = page.script("[...document.getElementById('kind').options].map((o) => o.value)")
        assert set(offered) == {"", *(kinds[name] for name in everything)}
        for kind in offered[1:]:
            choose_option(page, "kind", kind)
            assert set(shown_names(page)) == {n for n in everything if kinds[n] == kind}
        choose_option(page, "kind", "")
        shown = titles(truth.classes)
        classes = {name: shown[truth.labels[names.index(name)]] for name in everything}
        for each in set(classes.values()):
            choose_option(page, "class", each)
            assert set(shown_names(page)) == {n for n in everything if classes[n] == each}
        choose_option(page, "class", "")
    choose_option(page, "order", "best")
    ious = dict(zip(names, evaluation.headlines[-2].iou, strict=True))
    order = [ious[name] for name in shown_names(page)]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_is_readable_in_both_schemes(page, scheme):
    page.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    for width in (390, 1440):
        page.resize(width, 844)
        assert page.script("document.documentElement.scrollWidth") <= width
    colours = (
        "Object.fromEntries(['ink', 'pale', 'accent', 'hit', 'miss', 'paper', 'card', 'soft'].map("
        "(name) => [name, getComputedStyle(document.body).getPropertyValue(`--${name}`).trim()]))"
    )
    light = {name: luminance(code) for name, code in page.script(colours).items()}
    assert (light["paper"] > light["ink"]) == (scheme == "light")
    for text, ground in itertools.product(
        ("ink", "pale", "accent", "hit", "miss"), ("paper", "card")
    ):
        high, low = sorted((light[text], light[ground]), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)  # WCAG AA


def luminance(code):
    """Luminance of #rrggbb or #rgb, as WCAG defines it."""
    digits = code[1:] if len(code) == 7 else "".join(2 * digit for digit in code[1:])
    share = np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_hostile_names_are_only_text(scored, report, page):
    text = report.read_text()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(text)
    assert [a.get("id") for tag, a in tags if tag == "script"] == ["data", None]
    assert not any(tag in ("img", "link", "iframe", "object") for tag, _ in tags)
    assert not any({"src", "onerror"} & attributes.keys() for _, attributes in tags)
    data = page_data(report)
    assert data["maps"][0]["run"] == HOSTILE
    assert f"{IN_FILES}.jpg" in [image["name"] for image in data["images"]]
    assert IN_FILES in [image["class"] for image in data["images"]]
    assert page.script("window.broken") is None
    assert page.script("document.querySelector('article h2').textContent") == HOSTILE
    assert page.script("document.title").startswith("</script>")
    assert page.complaints == []


def test_curves_of_training_need_a_log(report, tmp_path):
    assert "<figcaption>val loss</figcaption>" in report.read_text()
    for number, text in enumerate(("", "epoch\n", "loss\n1\n", "epoch,loss\n1\n", "\x00,\x00\n")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "log.csv").write_text(text)
        charts = training_charts({"run": folder})
        assert charts.count("<figure>") == (text == "epoch,loss\n1\n")
    assert training_charts({"run": tmp_path, "no folder": None}) == ""


def test_a_term_is_drawn_with_its_value_for_an_untrained_network(tmp_path):
    text = "epoch,val_pull,val_pull_untrained\n1,0.69,0.7\n2,0.4,0.7\n"
    (tmp_path / "log.csv").write_text(text)
    chart = training_charts({"run": tmp_path})
    assert chart.count("<figure>") == 1
    assert "val pull against epoch: run, run, untrained" in chart


def test_a_page_needs_runs_on_the_same_images(scored, tmp_path):
    evaluation, _ = scored
    other = SimpleNamespace(examples=evaluation.dataset.examples[1:])
    two = {"a": evaluation, "b": replace(evaluation, dataset=other)}
    with pytest.raises(ValueError, match="b was scored on other images"):
        write_report(tmp_path / "r.html", two)
    assert not (tmp_path / "r.html").exists()


def test_the_page_shows_maps_before_and_after_the_attack(scored, report, tmp_path):
    """Each row: the image, and for each attacked run its map and the map of the attacked image."""
    evaluation, _ = scored
    attack = MapAttack(attack=PGD(eps=0.2, step_size=0.1, steps=3))
    measures = {"top_k_intersection": {"mean": 0.5, "interval": [0.4, 0.6]}}
    maps = [{"boxes": {"threshold": 0.3}, "measures": measures}]
    boxes = {"robustness": {"maps": maps, "accuracy": []}}
    two = {
        HOSTILE: replace(evaluation.with_metrics(boxes), map_attack=attack),
        "still": replace(evaluation.with_metrics(boxes), map_attack=replace(attack, attack=PGD(0))),
        "not attacked": evaluation,
    }
    with pytest.MonkeyPatch.context() as patch:  # its tables need a whole measurement
        patch.setattr("wsol.report.page.robustness_tables", lambda results: [])
        patch.setattr("wsol.report.page.accuracy_charts", lambda results: "")
        write_report(tmp_path / "r.html", two)
    text = (tmp_path / "r.html").read_text()
    table = re.search('<table class="maps">.*?</table>', text)[0]
    assert IN_FILES not in table
    rows = [re.findall('src="(.*?)"', row) for row in table.split("</tr>")[1:-1]]
    assert len(rows) == 6
    assert all(first != second and third == fourth for _, first, second, third, fourth in rows)
    assert '<table class="maps">' not in report.read_text()
