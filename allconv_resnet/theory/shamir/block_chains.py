"""Chains of residual blocks against linear predictors, by Shamir's argument (arXiv 1804.06739) block by block.

    h_0 = x,   h_l = h_(l-1) + V_l phi(A_l h_(l-1)),   p = W h_L,   F = E[loss(p, y)]

Let a_l = phi(A_l h_(l-1)) and G_l = E[l' a_l^T]. Since h_L = x + sum_l V_l a_l, convexity gives for every predictor
U x + sum_l R_l a_l, and with R = 0 for every linear one,

    F - E[loss(U x + sum_l R_l a_l)] <= <W - U, grad_W F> + sum_l <U V_l - R_l, G_l>.

The blocks behind block l do not see the free directions of block l, which are the vectors b with A_k b = 0 for all
k > l: they pass b on as it is. Let the columns of Q_l be an orthonormal basis of them. Then, at every point,

1. Q_l^T grad_(V_l) F = (W Q_l)^T G_l. So the gradient bounds G_l if W Q_l has full row rank.
2. if W b = 0 for a free direction b, then in the two directions of curvature.py the Hessian in (W, V_l) is
   [[kappa, |G_l|], [|G_l|, 0]] with kappa = E[(b . h_L)^2 a^T l'' a]. So |G_l|^2 <= s^2 + s kappa if its smallest
   eigenvalue is at least -s.

Hence a critical point at which 1 holds for all blocks is at least as good as every such predictor. If the hidden layers
of all blocks but the first have together fewer neurons than x has entries, less the number of outputs on which the loss
depends, then 2 holds everywhere: each critical point is at least as good as every such predictor, or its Hessian has a
negative eigenvalue. For L = 1 this is Shamir's theorem.

The statement and its proof are this project's. Yun, Sra & Jadbabaie (arXiv 1907.03922) have a theorem of this kind
"under simple geometric conditions", and Kawaguchi & Bengio (arXiv 1810.09038) one on the predictors with R. Their
abstracts were read, but not their theorems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.shamir.certificates import check_predictor
from allconv_resnet.theory.shamir.eigenvalues import ExtremeEigenvalues, extreme_eigenvalues
from allconv_resnet.theory.shamir.predictors import Problem

# Each activation, its derivative and its second derivative. At zero ReLU has the derivative 0, as in Keras.
ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2)),
    "relu": (lambda z: np.maximum(z, 0.0), lambda z: (z > 0) * 1.0, np.zeros_like),
}


class Coverage(NamedTuple):
    """What the hypotheses of the theorem say of one block.

    Attributes:
        free: Integer, the number of directions that no later block sees.
        rank: Integer, the rank of W on them, up to directions of the output on which the loss does not depend.
        outputs: Integer, the number of outputs on which the loss depends.
        gradient: Boolean, whether hypothesis 1 holds: `rank` is `outputs`.
        curvature: Boolean, whether hypothesis 2 holds: `free` is larger than `rank`.

    Example: a block behind which nothing follows sees all three inputs as free.

    >>> from allconv_resnet.theory.landscape import Problem
    >>> block = np.ones((3, 1)), np.ones((1, 3))
    >>> BlockChain(Problem(np.eye(3), [1.0, 2.0, 0.0]), [1.0, 0.0, 0.0], [block]).coverage()
    [Coverage(free=3, rank=1, outputs=1, gradient=True, curvature=True)]
    """

    free: int
    rank: int
    outputs: int
    gradient: bool
    curvature: bool


@dataclass(frozen=True, eq=False)
class BlockChain:
    """A point of a chain of residual blocks with a linear head.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        blocks: Sequence of pairs (V, A) of arrays `[d, k]` and `[k, d]`, in the order in which they are applied. The
            numbers k of hidden neurons may differ.
        activation: `"tanh"` or `"relu"`. At the kinks of ReLU the Hessian does not exist.

    Raises:
        BadInput: if there is no block, if a shape does not fit, or if a number is not finite.

    Example: with two blocks of one neuron each, and three inputs, all hypotheses hold.

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem(np.eye(3), [1.0, 2.0, 0.0])
    >>> block = np.ones((3, 1)), np.array([[1.0, -1.0, 0.0]])
    >>> chain = BlockChain(problem, [1.0, 0.0, 0.0], [block, block])
    >>> [(c.free, c.gradient, c.curvature) for c in chain.coverage()]
    [(2, True, True), (3, True, True)]
    """

    problem: Problem
    W: np.ndarray
    blocks: Sequence[tuple[np.ndarray, np.ndarray]]
    activation: Literal["tanh", "relu"] = "tanh"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise BadInput(
                f"activation must be one of {', '.join(ACTIVATIONS)}. Received: activation={self.activation!r}"
            )
        if not len(self.blocks):
            raise BadInput("A chain must have at least one block. Received: none")
        W = check_predictor(self.problem, self.W, name="W")
        blocks = [(np.asarray(V, np.float64), np.asarray(A, np.float64)) for V, A in self.blocks]
        d = self.problem.d
        for V, A in blocks:
            if V.ndim != 2 or A.shape != V.shape[::-1] or len(V) != d:
                raise BadInput(
                    f"A block must be a pair of arrays [{d}, k] and [k, {d}]. "
                    f"Received: shapes {list(V.shape)} and {list(A.shape)}"
                )
            if not (np.isfinite(V).all() and np.isfinite(A).all()):
                raise BadInput("Blocks must be finite. Received: NaN or infinity")
        object.__setattr__(self, "W", W)
        object.__setattr__(self, "blocks", blocks)

    def features(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns h_L, `[n, d]`, and the list of the activations a_l, `[n, k]`."""
        phi, *_ = ACTIVATIONS[self.activation]
        h, activations = self.problem.x, []
        for V, A in self.blocks:
            activations.append(phi(h @ A.T))
            h = h + activations[-1] @ V.T
        return h, activations

    def objective(self) -> float:
        """Returns F as a float."""
        return float(self.problem.loss.value(self.features()[0] @ self.W.T, self.problem.y).mean())

    def gradient(self) -> list[np.ndarray]:
        """Returns the gradients of F with respect to W, V_1, ..., V_L."""
        return self._derivatives([np.zeros_like(self.W), *(np.zeros_like(V) for V, _ in self.blocks)])[0]

    def hessian_product(self, directions: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the product of the Hessian of F in (W, V_1, ..., V_L) with `directions`, a list like that of
        `gradient`, as such a list.
        """
        return self._derivatives(directions)[1]

    def smallest_eigenvalue(self, seed: int = 0) -> ExtremeEigenvalues:
        """Returns the ends of the spectrum of the Hessian of F in (W, V_1, ..., V_L).

        Args:
            seed: Integer, seed of the first vector.

        Raises:
            BadInput: if the method does not converge.
        """
        shapes = [self.W.shape, *(V.shape for V, _ in self.blocks)]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

        def product(vector):
            parts = [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True)]
            return np.concatenate([part.ravel() for part in self.hessian_product(parts)])

        return extreme_eigenvalues(product, int(ends[-1]), seed=seed)

    def free_directions(self) -> list[np.ndarray]:
        """Returns Q_l for each block: an orthonormal basis of what no later block sees, an array `[d, f]`."""
        bases, rows = [], np.zeros((0, self.problem.d))
        for _, A in reversed(self.blocks):
            bases.insert(0, _null_space(rows))
            rows = np.concatenate([rows, A])
        return bases

    def coverage(self) -> list[Coverage]:
        """Returns for each block which hypotheses of the theorem hold, as a list of `Coverage`."""
        basis, results = self.problem.directions, []
        for Q in self.free_directions():
            rank, outputs = _rank(basis.T @ self.W @ Q), basis.shape[1]
            results.append(Coverage(Q.shape[1], rank, outputs, rank == outputs, Q.shape[1] > rank))
        return results

    def excess_bound(self, U: ArrayLike, smallest: float | None = None, R: Sequence[np.ndarray] | None = None) -> float:
        """Returns an upper bound of F - E[loss(U x + sum_l R_l a_l)] from the gradient and the curvature at this point.

        Args:
            U: Array `[m, d]`, or `[d]` for one output: any linear predictor.
            smallest: Float, the smallest eigenvalue of the Hessian in (W, V_1, ..., V_L), or a lower bound of it, of
                which an iteration gives an estimate alone, see `excess_of_point`. None
                uses the gradient alone.
            R: Sequence of arrays `[m, k]`, coefficients of the hidden neurons of each block. None stands for zeros, so
                that the point is compared with the linear predictor U.

        Returns:
            Nonnegative float. It is infinite if for some block neither hypothesis holds, or only that on the curvature
            and `smallest` is None.

        Raises:
            BadInput: if a shape does not fit.
        """
        problem, basis = self.problem, self.problem.directions
        U = check_predictor(problem, U)
        R = [np.zeros((problem.outputs, A.shape[0])) for _, A in self.blocks] if R is None else list(R)
        if [np.shape(part) for part in R] != [(problem.outputs, A.shape[0]) for _, A in self.blocks]:
            raise BadInput(
                f"R must have one array [{problem.outputs}, k] for each block. "
                f"Received: shapes {[list(np.shape(part)) for part in R]}"
            )
        gradient_W, *gradients = self.gradient()
        h, activations = self.features()
        predictions = h @ self.W.T
        slopes = problem.loss.gradient(predictions, problem.y) / problem.n
        bound = np.linalg.norm(basis.T @ (self.W - U)) * np.linalg.norm(gradient_W)
        parts = zip(self.blocks, activations, self.free_directions(), gradients, R, strict=True)
        for (V, _), a, Q, gradient, coefficients in parts:
            C = basis.T @ (U @ V - coefficients)
            W_free = basis.T @ self.W @ Q
            bounds = [np.inf]
            if _rank(W_free) == len(W_free):
                bounds.append(np.linalg.norm(np.linalg.pinv(W_free) @ C) * np.linalg.norm(Q.T @ gradient))
            ignored = Q @ _null_space(W_free)
            if smallest is not None and ignored.shape[1]:
                kappa = self._smallest_kappa(h, predictions, slopes.T @ a, ignored)
                s = max(0.0, -float(smallest))
                bounds.append(np.linalg.norm(C, "nuc") * np.sqrt(s**2 + s * kappa))
            bound += min(bounds) if C.any() else 0.0
        return float(bound)

    def _smallest_kappa(self, h, predictions, G, directions):
        """Returns the smallest kappa = E[(b . h_L)^2 a^T l'' a] of all unit vectors b in the span of `directions`."""
        problem = self.problem
        a = np.linalg.svd(G)[0][:, 0]
        along = np.broadcast_to(a, predictions.shape)
        curved = np.sum(along * problem.loss.hessian_product(predictions, problem.y, along), axis=1)
        projected = h @ directions
        return max(float(np.linalg.eigvalsh((projected.T * curved) @ projected / problem.n)[0]), 0.0)

    def _derivatives(self, directions):
        """Returns the gradient in (W, V_1, ..., V_L), and its derivative along `directions`."""
        problem, (phi, slope, curvature) = self.problem, ACTIVATIONS[self.activation]
        dW, *dVs = directions
        h, dh, kept = problem.x, np.zeros_like(problem.x), []
        for (V, A), dV in zip(self.blocks, dVs, strict=True):
            z, dz = h @ A.T, dh @ A.T
            a, da = phi(z), slope(z) * dz
            kept.append((slope(z), curvature(z) * dz, a, da))
            h, dh = h + a @ V.T, dh + a @ dV.T + da @ V.T
        predictions = h @ self.W.T
        g = problem.loss.gradient(predictions, problem.y) / problem.n
        dg = problem.loss.hessian_product(predictions, problem.y, h @ dW.T + dh @ self.W.T) / problem.n
        gradients, products = [g.T @ h], [dg.T @ h + g.T @ dh]
        g, dg = g @ self.W, g @ dW + dg @ self.W  # from here on with respect to h_l
        for (V, A), dV, (s, ds, a, da) in reversed(list(zip(self.blocks, dVs, kept, strict=True))):
            gradients.insert(1, g.T @ a)
            products.insert(1, dg.T @ a + g.T @ da)
            inner, dinner = g @ V, g @ dV + dg @ V
            g, dg = g + (s * inner) @ A, dg + (ds * inner + s * dinner) @ A
        return gradients, products


def _null_space(rows):
    """Returns an orthonormal basis (columns) of the vectors that a matrix maps to zero."""
    if not rows.any():
        return np.eye(rows.shape[1])
    return np.linalg.svd(rows)[2][_rank(rows) :].T


def _rank(matrix):
    return int(np.linalg.matrix_rank(matrix)) if matrix.size else 0
