"""Mean-field theory of a wide residual network at initialization (Tarnowski et al., arXiv 1809.08848).

    x[l] = a x[l-1] + phi(h[l]),  h[l] = W[l] x[l-1] + b[l],  Var W = weight_scale^2 / (N L),  Var b = bias_scale^2

The entries of h[l] are Gaussian with variance q[l]; p[l] and m[l] are the mean square and the mean of the entries of
x[l]. The bulk of the spectrum of the Jacobian dx[L]/dx[0] depends on one number only, the effective cumulant c, which
is the sum of weight_scale^2/(a^2 L) E[phi'^2] over the layers. In blocks x[l] = a x[l-1] + V[l] phi(h[l]), which this
module calls mixed, V has the variance 1/N. It removes the mean of phi, and leaves c as it is.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.tarnowski import activations
from allconv_resnet.theory.tarnowski.activations import ActivationLike, GaussianMeans

SMALLEST, LARGEST = math.log(1e-35), math.log(1e6)  # logarithms of the weight scales that are tried


class MeanField(NamedTuple):
    """The result of `mean_field`, in float64.

    Attributes:
        q: Float64 array `[L]`, variance of the pre-activations.
        p: Float64 array `[L + 1]`, mean square of the activations x[0] ... x[L].
        m: Float64 array `[L + 1]`, their mean.
        cumulants: Float64 array `[L]`, contributions of the layers to the effective cumulant, which is their sum.
        means: Tuple `[L]` of `GaussianMeans`.
    """

    q: np.ndarray
    p: np.ndarray
    m: np.ndarray
    cumulants: np.ndarray
    means: tuple[GaussianMeans, ...]


def mean_field(
    activation: ActivationLike,
    weight_scale: float,
    bias_scale: float,
    depth: int,
    input_mean_square: float = 1.0,
    input_mean: float = 0.0,
    skip: float = 1.0,
    mixed: bool = False,
) -> MeanField:
    """Returns the variances and means of every layer of a wide random residual network.

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.
        weight_scale: Positive float; the entries of each W have variance `weight_scale^2 / (width * depth)`.
        bias_scale: Nonnegative float, standard deviation of the biases.
        depth: Positive integer, number of residual layers L.
        input_mean_square: Positive float p[0].
        input_mean: Float m[0], in absolute value at most the square root of `input_mean_square`.
        skip: Positive float, the factor a of the identity.
        mixed: Whether a square Gaussian matrix of variance `1 / width` follows the activation.

    Returns:
        `MeanField`.

    Raises:
        BadInput: if an argument is outside these ranges, or if the variances overflow.

    Example:

    >>> mean_field("tanh", 1.0, 0.5, depth=40).cumulants.sum().round(4).item()
    0.6461
    """
    activation = activations.get(activation)
    depth = positive_integer(depth, "depth")
    if not (math.isfinite(weight_scale) and weight_scale > 0):
        raise BadInput(f"weight_scale must be positive and finite. Received: weight_scale={weight_scale}")
    if not (math.isfinite(bias_scale) and bias_scale >= 0):
        raise BadInput(f"bias_scale must be nonnegative and finite. Received: bias_scale={bias_scale}")
    if not (math.isfinite(input_mean_square) and 0 < input_mean_square >= input_mean**2):
        raise BadInput(
            f"input_mean_square must be positive and at least input_mean^2. "
            f"Received: input_mean_square={input_mean_square}, input_mean={input_mean}"
        )
    if not (math.isfinite(skip) and skip > 0):
        raise BadInput(f"skip must be positive and finite. Received: skip={skip}")
    weight_scale, bias_scale, skip = float(weight_scale), float(bias_scale), float(skip)
    q, p, m, cumulants, means = [], [float(input_mean_square)], [float(input_mean)], [], []
    for layer in range(1, depth + 1):
        q.append(weight_scale**2 / depth * p[-1] + bias_scale**2)
        mean = activations.gaussian_means(activation, q[-1])
        means.append(mean)
        cumulants.append(weight_scale**2 / (skip**2 * depth) * mean.d_d)
        drift = 0.0 if mixed else mean.phi
        p.append(skip**2 * p[-1] + 2 * skip * m[-1] * drift + mean.phi_phi)
        m.append(skip * m[-1] + drift)
        if not math.isfinite(p[-1] + cumulants[-1]) or p[-1] > 1e150:
            raise BadInput(
                f"The network must have finite activations. Received: {activation.name} with weight_scale="
                f"{weight_scale}, whose mean square at layer {layer} of {depth} is {p[-1]:.3g}"
            )
    return MeanField(np.array(q), np.array(p), np.array(m), np.array(cumulants), tuple(means))


def effective_cumulant(
    activation: ActivationLike,
    weight_scale: float,
    bias_scale: float,
    depth: int,
    input_mean_square: float = 1.0,
    input_mean: float = 0.0,
    skip: float = 1.0,
    mixed: bool = False,
) -> float:
    """Returns the effective cumulant c, the only parameter of the universal spectrum (Tarnowski et al., section 3).

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.
        weight_scale: Positive float; the entries of each W have variance `weight_scale^2 / (width * depth)`.
        bias_scale: Nonnegative float, standard deviation of the biases.
        depth: Positive integer, number of residual layers.
        input_mean_square: Positive float, mean square of the entries of the input.
        input_mean: Float, their mean.
        skip: Positive float, the factor a of the identity.
        mixed: Whether a square Gaussian matrix of variance `1 / width` follows the activation.

    Returns:
        Positive float.

    Raises:
        BadInput: as in `mean_field`, and if the derivative of the activation vanishes everywhere, so that c = 0.

    Example:

    >>> round(effective_cumulant("relu", 1.0, 0.0, depth=40), 9)  # weight_scale^2 / 2
    0.5
    """
    arguments = (activation, weight_scale, bias_scale, depth, input_mean_square, input_mean, skip, mixed)
    c = float(mean_field(*arguments).cumulants.sum())
    if c <= 0:
        name = activations.get(activation).name
        raise BadInput(f"An activation must have a derivative that is not zero everywhere. Received: {name}")
    return c


def weight_scale_for(
    activation: ActivationLike,
    c: float,
    depth: int,
    bias_scale: float = 0.0,
    input_mean_square: float = 1.0,
    input_mean: float = 0.0,
    skip: float = 1.0,
    mixed: bool = False,
) -> float:
    """Returns the weight scale at which a network has the effective cumulant `c`, and thus the spectrum of this c.

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.
        c: Positive float.
        depth: Positive integer, number of residual layers.
        bias_scale: Nonnegative float, standard deviation of the biases.
        input_mean_square: Positive float, mean square of the entries of the input.
        input_mean: Float, their mean.
        skip: Positive float, the factor a of the identity.
        mixed: Whether a square Gaussian matrix of variance `1 / width` follows the activation.

    Returns:
        Positive float.

    Raises:
        BadInput: as in `mean_field`, and if `c` is not positive or is not reached by any weight scale at which the
            activations are finite.

    Example:

    >>> round(weight_scale_for("relu", 0.125, depth=20), 9)
    0.5
    >>> round(weight_scale_for(lambda h: h**3, 50.0, depth=40), 3)  # at 7 its activations overflow
    1.984
    """
    check_cumulant(c)
    activation = activations.get(activation)
    network = (bias_scale, positive_integer(depth, "depth"), input_mean_square, input_mean, skip, mixed)

    def excess(log_scale):
        return math.log(effective_cumulant(activation, math.exp(log_scale), *network) / c)

    low = high = min(math.log(c) / 2, LARGEST)
    while _or_infinite(excess, low)[0] > 0:
        low, high = low - 1.0, low
        if low < SMALLEST:
            excess(low)  # which says what is wrong with the activation, if it is that
            raise BadInput(f"c must be reached by a weight scale above {math.exp(SMALLEST):.0e}. Received: c={c}")
    while True:
        value, error = _or_infinite(excess, high)
        if value >= 0:
            break
        low, high = high, high + 0.5
        if high > LARGEST:
            raise BadInput(
                f"c must be reached by a weight scale below {math.exp(LARGEST):.0e}. "
                f"Received: c={c} for {activation.name}, which stays below"
            )
    # An activation that grows faster than linearly overflows soon beyond c, if not before it.
    while error is not None and high - low > 1e-13 * max(1.0, abs(high)):
        middle = (low + high) / 2
        value, reason = _or_infinite(excess, middle)
        if value < 0:
            low = middle
        else:
            high, error = middle, reason
    if error is not None:
        raise error
    return math.exp(high if excess(high) == 0 else brentq(excess, low, high, xtol=1e-14, rtol=1e-14))


def _or_infinite(excess, log_scale):
    """Returns the excess and None, or infinity and the error where the network overflows."""
    try:
        return excess(log_scale), None
    except BadInput as error:
        return math.inf, error


def check_cumulant(c):
    """Checks that an effective cumulant is a positive finite number.

    Raises:
        BadInput: if it is not.
    """
    if not (np.isscalar(c) and np.isrealobj(c) and math.isfinite(c) and c > 0):
        raise BadInput(f"The effective cumulant c must be a positive finite number. Received: c={c}")
