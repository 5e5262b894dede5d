"""Random matrices on which the theorems of section 2 are tested: targets to factorize, and networks for the bounds."""

import numpy as np

TARGET_KINDS = (
    "normal",
    "conditioned",
    "turned by pi",
    "permutation",
    "near singular",
    "negative",
    "rotation",
)
MAX_DIMENSION = 64


def random_rotation(rng, d):
    """Returns a uniformly distributed rotation `[d, d]`.

    Args:
        rng: `numpy.random.Generator`.
        d: Positive integer.
    """
    Q, upper = np.linalg.qr(rng.standard_normal((d, d)))
    Q *= np.sign(np.diag(upper))
    Q[:, 0] *= np.sign(np.linalg.det(Q))
    return Q


def random_target(rng, kind, d=None):
    """Returns a random `[d, d]` matrix with positive determinant.

    Args:
        rng: `numpy.random.Generator`.
        kind: One of `TARGET_KINDS`.
        d: Positive integer, or None to draw it from 1 to 64. Some kinds need, and then get, at least 2.
    """
    d = int(rng.integers(1, MAX_DIMENSION + 1)) if d is None else d
    if kind in ("turned by pi", "near singular", "negative"):
        d = max(d, 2)
    if kind == "normal":
        return _with_positive_determinant(rng.standard_normal((d, d)))
    if kind == "conditioned":  # condition number up to 1e6, and a random scale
        stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(1e6) * np.linspace(-1, 1, d) + rng.uniform(-2, 2))
        return random_rotation(rng, d) * stretch @ random_rotation(rng, d)
    if kind == "turned by pi":  # an even number of eigenvalues -1
        signs = np.where(np.arange(d) < 2 * rng.integers(1, d // 2 + 1), -1.0, 1.0)
        Z = random_rotation(rng, d)
        return Z * signs @ Z.T
    if kind == "permutation":
        return _with_positive_determinant(np.eye(d)[rng.permutation(d)])
    if kind == "near singular":  # condition number 1e6 to 1e12
        stretch = np.r_[np.ones(d - 1), 10.0 ** -rng.uniform(6, 12)]
        return random_rotation(rng, d) * stretch @ random_rotation(rng, d)
    if kind == "negative":  # negative real eigenvalues in a basis that is not orthogonal
        eigenvalues = -np.exp(rng.standard_normal(d))
        eigenvalues[0] *= np.prod(np.sign(eigenvalues))
        basis = np.eye(d) + 0.3 / np.sqrt(d) * rng.standard_normal((d, d))
        return np.linalg.solve(basis.T, (basis * eigenvalues).T).T
    return random_rotation(rng, d)


def random_network(rng):
    """Returns a random linear network and its problem, `(A, R, cov)`, with `norm(A) < 1`.

    There are at most 8 factors and 6 dimensions. In one of eight networks `A_i = -t I` and `cov = I`, where the bound
    on the gradient is attained.

    Args:
        rng: `numpy.random.Generator`.
    """
    depth, d = int(rng.integers(1, 9)), int(rng.integers(1, 7))
    R = rng.standard_normal((d, d)) * 10.0 ** rng.uniform(-2, 2)
    t = rng.uniform(0, 0.99)
    if rng.random() < 1 / 8:
        return np.broadcast_to(-t * np.eye(d), (depth, d, d)), R, np.eye(d)
    A = rng.standard_normal((depth, d, d)) - rng.exponential() * np.eye(d)
    A *= t / np.linalg.norm(A, ord=2, axis=(1, 2)).max()
    if rng.random() < 1 / 2:
        A *= (t / np.linalg.norm(A, ord=2, axis=(1, 2)))[:, None, None]
    Z = random_rotation(rng, d)
    cov = Z * 10.0 ** rng.uniform(-2, 2, d) @ Z.T
    return A, R, (cov + cov.T) / 2


def random_network_of_any_norm(rng):
    """Returns a random linear network and its problem, `(A, R, cov)`; `norm(A)` may be large and `cov` singular.

    Args:
        rng: `numpy.random.Generator`.
    """
    A, R, cov = random_network(rng)
    if len(R) > 1 and rng.random() < 1 / 4:
        values, vectors = np.linalg.eigh(cov)
        values[0] = 0
        cov = vectors * values @ vectors.T
        cov = (cov + cov.T) / 2
    return A * 10.0 ** rng.uniform(-0.5, 1), R, cov


def _with_positive_determinant(R):
    if np.linalg.slogdet(R)[0] < 0:
        R[0] *= -1
    return R
