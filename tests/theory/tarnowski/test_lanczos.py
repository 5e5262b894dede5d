"""Block Lanczos iteration is compared with whole decompositions, for repeated, zero and clustered singular values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.theory import isometry


class Matrix:
    def __init__(self, matrix):
        self.matrix, self.shape, self.products = matrix, matrix.shape, 0

    def forward(self, vectors):
        self.products += len(vectors)
        return vectors @ self.matrix.T

    def backward(self, vectors):
        return vectors @ self.matrix


def with_values(values, rows, columns, seed=0):
    """Returns a random matrix with given singular values."""
    random = np.random.default_rng(seed)
    left, right = (np.linalg.qr(random.standard_normal((n, len(values))))[0] for n in (rows, columns))
    return Matrix(left * values @ right.T)


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 1.0 + 1e-4, 2.0, 5.0]), min_size=3, max_size=25),
    extra=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    data=st.data(),
)
def test_repeated_zero_and_close_values(values, extra, data):
    k = data.draw(st.integers(1, len(values)))
    operator = with_values(values, len(values) + min(extra), len(values) + extra[0] - min(extra))
    expected = np.linalg.svd(operator.matrix, compute_uv=False)
    largest = isometry.lanczos_singular_values(operator, k, "largest")
    smallest = isometry.lanczos_singular_values(operator, k, "smallest")
    both = isometry.lanczos_singular_values(operator, k)
    np.testing.assert_allclose(largest, expected[:k], atol=1e-6)
    np.testing.assert_allclose(smallest, expected[-k:], atol=1e-6)
    whole = expected if 2 * k >= len(expected) else np.append(expected[:k], expected[-k:])
    np.testing.assert_allclose(both, whole, atol=1e-6)


def test_five_equal_values_among_three_hundred():
    """Lanczos iteration with one vector found [2, 2, 2, 1.9, 1.897] here."""
    values = np.append(np.full(5, 2.0), np.linspace(0, 1.9, 295))
    found = isometry.lanczos_singular_values(Matrix(np.diag(values)), 5, "largest")
    np.testing.assert_allclose(found, 2.0, rtol=1e-9)


def test_it_stops_early_when_the_largest_values_have_converged():
    operator = Matrix(np.diag(np.linspace(1, 2, 600) ** 6))
    found = isometry.lanczos_singular_values(operator, 3, "largest")
    np.testing.assert_allclose(found, np.sort(np.diag(operator.matrix))[::-1][:3], rtol=1e-9)
    assert operator.products < 400


def test_what_has_not_converged_is_said():
    operator = Matrix(np.diag(np.linspace(1, 2, 600)))
    with pytest.raises(RunFailed, match="4 of 4 singular values have not converged after 12 of 600 products"):
        isometry.lanczos_singular_values(operator, 4, "smallest", limit=12)
    with pytest.raises(BadInput, match="k must lie between 1"):
        isometry.lanczos_singular_values(operator, 601)
