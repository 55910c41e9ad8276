"""The parts of the report, without a browser."""

import json
import re
from types import SimpleNamespace
from unittest import mock
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np

from wsol.benchmarks.synthetic_maps import synthetic_maps
from wsol.boxes.component_tree import largest_by_cut
from wsol.boxes.heatmap_boxes import to_bytes
from wsol.evaluation.error_types import ERROR_TYPES
from wsol.report.gallery import box_spans, choose
from wsol.report.page import script_data
from wsol.report.plots import Line, accuracy_charts, line_chart, line_figure


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


def test_the_gallery_has_best_worst_and_every_error_type():
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


def test_the_points_of_a_chart_are_at_their_coordinates():
    line = Line("<b>", 7, [0, 0.5, 1], [0, float("nan"), 100], [(0, 10)] * 3, (0.5, 50))
    (axes,) = line_figure("x", [line], x_range=(0, 1), y_range=(0, 100)).axes
    path, dot = (each.get_xydata().tolist() for each in axes.lines)
    assert (path, dot) == ([[0, 0], [1, 100]], [[0.5, 50]])
    (band,) = axes.collections
    corners = band.get_paths()[0].get_extents().extents
    assert corners.tolist() == [0, 0, 1, 10]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (0, 100))
    (axes,) = line_figure("epoch", [Line("a", 0, [1, 2, 3], [0.12, 0.31, 0.27])]).axes
    axes.figure.canvas.draw()
    assert (axes.get_xlim(), axes.get_ylim()[0] <= 0.12) == ((1, 3), True)
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    (axes,) = line_figure("epoch", [Line("a", 0, [1], [0.5])]).axes
    assert axes.lines[0].get_marker() == "o"  # a line of one point would not be seen


def test_a_chart_is_part_of_the_page():
    """It has the page's colours, its text is text, and it has no style for the whole page."""
    lines = [Line("<b>", 0, [0, 1], [0, 100], [(0, 1)] * 2), Line("c", 1, [0, 1], [3, 4])]
    with mpl.rc_context({"svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        text = line_chart("a & b", "x", lines)
        assert dict(mpl.rcParams) == before
    assert text == line_chart("a & b", "x", lines)
    figure = ElementTree.fromstring(text)
    svg = figure.find("svg")
    assert svg.get("aria-label") == "a & b against x: <b>, c"
    assert "x" in [each.text for each in figure.iter("text")]
    assert figure.find("figcaption").text == "a & b"
    assert [each.text for each in figure.iter("li")] == ["<b>", "c"]
    for name in ("line-0", "line-1", "pale", "rule"):
        assert f"var(--{name})" in text
    # no other colour is allowed, because the page has a light and a dark scheme
    assert not re.search(r"(stroke|fill): #", text)
    assert not re.search(r"<style|<metadata", text)
    assert all(f"#{name}" in text for name in re.findall(r' id="(.*?)"', text))


def test_accuracy_under_attack_is_drawn_in_percent_and_255ths():
    curve = {"eps": [0, 2 / 255], "accuracy": [0.5, 0.25], "intervals": [[0.25, 0.75], [0, 0.5]]}
    curves = [
        curve | {"curve": {"attack": {"norm": norm}}, "protocol": f"{name} {norm}"}
        for name, norm in (("PGD", "linf"), ("PGD", "l2"), ("AutoAttack", "linf"))
    ]
    metrics = {"a": {}, "b": {"robustness": {"accuracy": curves}}}
    with mock.patch("wsol.report.plots.line_chart", return_value="") as chart:
        accuracy_charts(metrics)
    (title, label, (line,)), _ = chart.call_args_list[0]
    assert (title, label) == ("accuracy, %, PGD linf", "radius, 255ths")
    assert (line.name, line.colour) == ("b", 1)
    assert (line.x, line.y) == ([0, 2], [50, 25])
    assert line.band == [[25, 75], [0, 50]]
    figures = accuracy_charts(metrics)
    assert figures.count("<figure>") == 3
    assert "radius, of images in [0,1]" in figures
    assert accuracy_charts({"a": {}}) == ""
