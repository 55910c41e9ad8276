"""How alike two maps are, on tensors."""

import pytest
import torch

from robust_training.attribution.similarity import pearson, top_k_intersection


def test_top_k_intersection_by_hand():
    first = torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    second = torch.tensor([[5.0, 1, 4, 2, 3], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(top_k_intersection(first, second, 2), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(top_k_intersection(first, second, 5), torch.ones(2))
    for k in (0, 6):
        with pytest.raises(ValueError, match="1 to the 5 pixels"):
            top_k_intersection(first, second, k)


def test_pearson_equals_numpy_and_a_constant_has_none():
    rows = torch.randn(2, 4, 30, dtype=torch.float64)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)]
    torch.testing.assert_close(pearson(*rows), torch.stack(expected), rtol=1e-6, atol=1e-6)
    assert pearson(torch.ones(5), torch.randn(5)) == 0


def test_equal_pixels_count_in_their_order():
    zeros, corner = torch.zeros(1, 100), torch.zeros(1, 100)
    corner[:, :10] = 1
    assert top_k_intersection(zeros, corner, 10) == 1
    assert top_k_intersection(zeros, corner.flip(1), 10) == 0
