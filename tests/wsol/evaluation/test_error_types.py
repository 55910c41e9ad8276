"""Kinds of error."""

import numpy as np

from wsol.evaluation.error_types import ERROR_TYPES, error_types


def test_kinds_of_error_by_hand():
    truths = np.array([[[10, 10, 30, 30], [10, 10, 30, 30]]] * 6, float)
    truths[4] = [[0, 0, 10, 10], [20, 0, 30, 10]]
    counts = np.array([1, 1, 1, 1, 2, 1])
    boxes = [
        [10, 10, 30, 30],  # right
        [12, 12, 20, 20],  # inside
        [0, 0, 60, 60],  # around
        [40, 40, 50, 50],  # beside
        [0, 0, 30, 10],  # around two
        [0, 0, 0, 0],  # none
    ]
    kinds = error_types(np.array(boxes), truths, counts)
    assert kinds.tolist() == [
        *("right", "box on a part", "box too large", "elsewhere"),
        *("several instances", "elsewhere"),
    ]
    edges = {  # on both sides of each share
        (10, 10, 30, 19): "box on a part",
        (0, 10, 19, 19): "elsewhere",  # 47 % of it inside
        (0, 10, 21, 19): "box on a part",  # 52 %
        (0, 10, 21, 30): "elsewhere",  # 52 % of it inside, but no smaller than the bird
        (0, 0, 25, 40): "box too large",
        (0, 0, 23, 40): "elsewhere",
    }
    for box, kind in edges.items():
        assert error_types(np.array([box]), truths[:1], counts[:1]) == [kind], box
    two, pair = truths[4:5], np.array([2])
    assert error_types(np.array([[6, 0, 24, 20]]), two, pair) == ["several instances"]
    assert error_types(np.array([[8, 0, 22, 20]]), two, pair) == ["elsewhere"]
    wrong = error_types(np.array(boxes), truths, counts, np.zeros(6, bool))
    assert set(wrong) == {"wrong class"}
    assert set(kinds) | set(wrong) == set(ERROR_TYPES)
