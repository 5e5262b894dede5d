"""Derivatives on the backend that Keras runs on: the one module of `theory` that knows which it is.

Functions come in as Keras functions (`keras.ops`, layers, models) and arrays go in and out as NumPy. TensorFlow or
JAX is imported when it is asked to differentiate, never before.
"""

from contextlib import nullcontext

import keras
import numpy as np

from allconv_resnet.errors import BadInput


def double_precision():
    """Returns a context in which the backend computes in float64 if it is given float64 (JAX needs to be told)."""
    if _backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return nullcontext()


def evaluate(function, x):
    """Returns `function(x)` as an array.

    Args:
        function: Callable of one tensor, written with `keras.ops`.
        x: Array. Its dtype is kept.
    """
    with double_precision():
        return _array(function(tensor(x)))


def value_and_gradient(function, x, cotangents=None):
    """Returns `function(x)` and the gradient in `x` of the sum of its entries, each times its cotangent.

    For an elementwise function without cotangents this is the value and the derivative.

    Args:
        function: Callable of one tensor, written with `keras.ops`.
        x: Array. Its dtype is kept.
        cotangents: Array of the output's shape, by default ones.

    Raises:
        BadInput: if the backend cannot differentiate the function.
    """
    with double_precision():
        value, gradient = _pullback(function, tensor(x), cotangents)
        return _array(value), _array(gradient)


def hessian_product(function, x, vectors):
    """Returns the Hessian of the sum of `function(x)`, times `vectors`; both have the shape of `x`.

    Args:
        function: Callable of one tensor, written with `keras.ops`.
        x: Array. Its dtype is kept.
        vectors: Array of the same shape.
    """
    with double_precision():
        x, vectors = tensor(x), tensor(vectors)
        gradient = _pullback(lambda x: _pullback(function, x)[1], x, vectors, constant=True)[1]
        return _array(gradient)


def parameter_pullback(model, x):
    """Returns the outputs of a model, and the map from cotangents to gradients in its trainable weights.

    Args:
        model: Keras model.
        x: Array, batch of inputs.

    Returns:
        Array, and a function to be called once: from cotangents, an array of the shape of the outputs, to a list of
        arrays in the order of `model.trainable_variables`.
    """
    x = tensor(np.asarray(x, model.compute_dtype))
    if _backend() == "tensorflow":
        import tensorflow as tf

        weights = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            outputs = model(x, training=False)

        def pullback(cotangents):
            # A weight that the outputs do not depend on has gradient zero: the list lines up with the variables.
            return tape.gradient(outputs, weights, cotangents, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    else:
        import jax

        fixed = [variable.value for variable in model.non_trainable_variables]
        weights = [variable.value for variable in model.trainable_variables]
        outputs, of_tuple = jax.vjp(lambda w: model.stateless_call(w, fixed, x, training=False)[0], weights)

        def pullback(cotangents):
            return of_tuple(cotangents)[0]

    def gradients(cotangents):
        return [_array(g) for g in pullback(tensor(np.asarray(cotangents, values.dtype)))]

    values = _array(outputs)
    return values, gradients


def linearize(function, x):
    """Returns the products of the Jacobian of a function at one point with vectors, compiled.

    Args:
        function: Callable that maps a batch of inputs to a batch of outputs.
        x: Array `[*input_shape]`, one input. Its dtype is kept.

    Returns:
        `output_shape`; `forward`, which maps tangents `[b, *input_shape]` to `[b, *output_shape]`; and `backward`,
        which maps cotangents `[b, *output_shape]` to `[b, *input_shape]`.
    """
    with double_precision():
        forward, backward, output = _linearize(function, tensor(x))

    def array_to_array(compiled):
        def product(vectors):
            with double_precision():
                return _array(compiled(tensor(np.asarray(vectors, x.dtype))))

        return product

    return tuple(output.shape), array_to_array(forward), array_to_array(backward)


def _linearize(function, x):
    def one(x):
        return function(x[None])[0]

    # Both backends vectorize over the vectors alone: the network itself is evaluated once a batch, at one input.
    if _backend() == "tensorflow":
        import tensorflow as tf

        output, zero = one(x), tf.UnconnectedGradients.ZERO

        @tf.function(input_signature=[tf.TensorSpec([None, *x.shape], x.dtype)])
        def forward(tangents):
            def product(tangent):
                with tf.autodiff.ForwardAccumulator(x, tangent) as accumulator:
                    y = one(x)
                return accumulator.jvp(y, unconnected_gradients=zero)

            return tf.vectorized_map(product, tangents)

        @tf.function(input_signature=[tf.TensorSpec([None, *output.shape], output.dtype)])
        def backward(cotangents):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = one(x)
            return tf.vectorized_map(lambda u: tape.gradient(y, x, u, unconnected_gradients=zero), cotangents)

        return forward, backward, output
    import jax

    output, pushforward = jax.linearize(one, x)
    _, pullback = jax.vjp(one, x)
    return jax.jit(jax.vmap(pushforward)), jax.jit(jax.vmap(lambda u: pullback(u.astype(output.dtype))[0])), output


def _pullback(function, x, cotangents=None, constant=False):
    """Vector-Jacobian product; a function that does not depend on `x` is an error unless it may be `constant`."""
    if _backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tensor(function(x))
        weights = None if cotangents is None else tf.cast(tensor(cotangents), value.dtype)
        gradient = tape.gradient(value, x, weights)
        if gradient is None and constant:
            gradient = tf.zeros_like(x)
        if gradient is None:
            raise BadInput(
                f"A function to differentiate must be written with keras.ops and depend on its argument. "
                f"Received: {function}"
            )
        return value, gradient
    import jax

    try:
        value, pullback = jax.vjp(function, x)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise BadInput(f"A function to differentiate must be written with keras.ops. Received: {function}") from error
    weights = keras.ops.ones_like(value) if cotangents is None else tensor(cotangents).astype(value.dtype)
    return value, pullback(weights)[0]


def _backend():
    name = keras.backend.backend()
    if name not in ("tensorflow", "jax"):
        raise BadInput(f"Derivatives are implemented on the Keras backends tensorflow and jax. Received: {name!r}")
    return name


def tensor(x):
    """Returns a backend tensor of the same dtype; float64 stays float64 within `double_precision`."""
    return keras.ops.convert_to_tensor(x, dtype=getattr(x, "dtype", None))


def _array(x):
    return keras.ops.convert_to_numpy(x)
