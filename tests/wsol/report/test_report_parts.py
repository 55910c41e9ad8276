"""What the page of results is made of, without a browser."""

import json
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np

from wsol.benchmarks.synthetic_maps import synthetic_maps
from wsol.boxes.component_tree import largest_by_cut
from wsol.boxes.heatmap_boxes import to_bytes
from wsol.evaluation.error_types import ERROR_TYPES
from wsol.report.curves import Line, accuracy_charts, chart
from wsol.report.gallery import box_spans, choose
from wsol.report.page import script_data


def test_script_data_is_json_without_markup():
    text = "".join(map(chr, range(0x2100))) + "</script><!--"  # U+2028 among them
    found = script_data({text: text})
    assert json.loads(found) == {text: text}
    assert found.isascii()
    assert "<" not in found


def test_spans_give_the_largest_box_at_every_cut():
    for heatmap in synthetic_maps(24).values():
        largest = largest_by_cut(to_bytes(heatmap))
        spans = box_spans(largest)
        for cut in range(256):
            row = spans[spans[:, 0] <= cut][-1]
            assert row[1:].tolist() == largest[cut].tolist()
        assert (spans[1:, 1:] != spans[:-1, 1:]).any(axis=1).all()


def test_the_sample_holds_best_worst_and_every_kind():
    rng = np.random.default_rng(0)
    chosen = []
    for _ in range(2):
        kinds = np.array([ERROR_TYPES[0], ERROR_TYPES[-1]], object)[
            (rng.random(500) < 0.02).astype(int)
        ]
        kinds[rng.integers(500)] = ERROR_TYPES[3]
        chosen.append(SimpleNamespace(iou=rng.random(500), error_types=kinds))
    found = choose(chosen, 30)
    assert found == choose(chosen, 30)
    assert found == sorted(set(found))
    assert len(found) == 30
    for each in chosen:
        assert {each.iou.argmax(), each.iou.argmin()} <= set(found)
        assert set(each.error_types[found]) == set(each.error_types)
    assert choose(chosen, 1000) == list(range(500))


def test_a_chart_puts_points_where_they_belong():
    line = Line("<b>", 0, [0, 0.5, 1], [0, float("nan"), 100], [(0, 10)] * 3, (0.5, 50))
    figure = chart("a & b", "x", [line], x_range=(0, 1), y_range=(0, 100))
    svg = ElementTree.fromstring(figure).find("svg")
    path = svg.find("polyline").get("points")
    assert path == "46.0,162.0 330.0,10.0"
    dot = svg.find("circle")
    assert (float(dot.get("cx")), float(dot.get("cy"))) == (188, 86)
    assert svg.get("aria-label") == "a & b against x: <b>"
    assert [text.text for text in svg.iter("text")][:3] == ["0", "20", "40"]


def test_accuracy_under_attack_is_drawn_in_percent_and_255ths():
    curve = {"eps": [0, 2 / 255], "accuracy": [0.5, 0.25], "intervals": [[0.25, 0.75], [0, 0.5]]}
    curves = [curve | {"curve": {"attack": {"norm": norm}}} for norm in ("linf", "l2")]
    figures = accuracy_charts({"a": {}, "b": {"robustness": {"accuracy": curves}}})
    linf, _ = ElementTree.fromstring(f"<div>{figures}</div>")
    assert linf.find("svg/polyline").get("points") == "46.0,86.0 330.0,124.0"
    ends = "46.0,124.0 330.0,162.0 330.0,86.0 46.0,48.0"
    assert linf.find("svg/polygon").get("points") == ends
    assert [text.text for text in linf.iter("text")][-4:] == ["0", "1", "2", "radius, 255ths"]
    assert accuracy_charts({"a": {}}) == ""
