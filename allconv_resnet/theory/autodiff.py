"""Derivatives of Keras functions on the backend of Keras, TensorFlow or JAX.

The functions to differentiate are written with `keras.ops`, layers or models; arguments and results are NumPy arrays.
No other module of `theory` depends on the backend, and this one imports the backend only when it differentiates.
"""

from contextlib import nullcontext

import keras
import numpy as np

from allconv_resnet.errors import BadInput


def double_precision():
    """Returns a context manager in which the backend keeps float64, which JAX does only on request."""
    if _backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return nullcontext()


def evaluate(function, x):
    """Returns `function(x)` as an array.

    Args:
        function: Callable of one tensor, written with `keras.ops`.
        x: Array; its dtype is kept.
    """
    with double_precision():
        return _array(function(tensor(x)))


def value_and_gradient(function, x, cotangents=None):
    """Returns `function(x)` and the gradient with respect to `x` of `sum(cotangents * function(x))`.

    For an elementwise function and no cotangents, these are the values and the derivatives.

    Args:
        function: Callable of one tensor, written with `keras.ops`.
        x: Array; its dtype is kept.
        cotangents: Array of the shape of the output, or None for ones.

    Returns:
        Pair of arrays.

    Raises:
        BadInput: if the backend cannot differentiate the function.
    """
    with double_precision():
        value, gradient = _pullback(function, tensor(x), cotangents)
        return _array(value), _array(gradient)


def hessian_product(function, x, vectors):
    """Returns the product of the Hessian of `sum(function(x))` with `vectors`.

    Args:
        function: Callable of one tensor, written with `keras.ops`.
        x: Array; its dtype is kept.
        vectors: Array of the shape of `x`.

    Returns:
        Array of the shape of `x`.
    """
    with double_precision():
        x, vectors = tensor(x), tensor(vectors)
        gradient = _pullback(lambda x: _pullback(function, x)[1], x, vectors, constant=True)[1]
        return _array(gradient)


def parameter_pullback(model, x):
    """Returns the outputs of a model, and a function from cotangents to gradients of its trainable weights.

    Args:
        model: Keras model.
        x: Array, a batch of inputs.

    Returns:
        The outputs as an array, and a function that may be called once. It maps cotangents, an array of the shape of
        the outputs, to a list of arrays in the order of `model.trainable_variables`.
    """
    x = tensor(np.asarray(x, model.compute_dtype))
    if _backend() == "tensorflow":
        import tensorflow as tf

        weights = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            outputs = model(x, training=False)

        def pullback(cotangents):
            # A weight that does not affect the outputs gets a zero gradient, so that the list matches the variables.
            return tape.gradient(outputs, weights, cotangents, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    else:
        import jax

        fixed = [variable.value for variable in model.non_trainable_variables]
        weights = [variable.value for variable in model.trainable_variables]
        outputs, vector_jacobian_product = jax.vjp(
            lambda w: model.stateless_call(w, fixed, x, training=False)[0], weights
        )

        def pullback(cotangents):
            return vector_jacobian_product(cotangents)[0]

    def gradients(cotangents):
        return [_array(g) for g in pullback(tensor(np.asarray(cotangents, values.dtype)))]

    values = _array(outputs)
    return values, gradients


def weight_derivatives(model, loss):
    """Returns compiled first and second derivatives of a total loss with respect to the trainable weights of a model.

    Args:
        model: Keras model, which is evaluated with its current weights and `training=False`.
        loss: Callable `(outputs, targets) -> [n]`, written with `keras.ops`.

    Returns:
        A function from inputs and targets to the sum of the losses, a float, and its gradients, a list of arrays in the
        order of `model.trainable_variables`; and a function from inputs, targets and such a list of vectors to the
        products of the Hessian with them.
    """
    gradient, product = _weight_derivatives(model, loss)

    def vectors_of(arrays):
        pairs = zip(arrays, model.trainable_variables, strict=True)
        return [tensor(np.asarray(array, variable.dtype)) for array, variable in pairs]

    def value_and_gradients(x, targets):
        value, gradients = gradient(tensor(np.asarray(x, model.compute_dtype)), tensor(targets))
        return float(value), [_array(part) for part in gradients]

    def products(x, targets, arrays):
        parts = product(tensor(np.asarray(x, model.compute_dtype)), tensor(targets), vectors_of(arrays))
        return [_array(part) for part in parts]

    return value_and_gradients, products


def _weight_derivatives(model, loss):
    if _backend() == "tensorflow":
        import tensorflow as tf

        def gradient(x, targets):
            weights = [variable.value for variable in model.trainable_variables]
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(loss(model(x, training=False), targets))
            return total, tape.gradient(total, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        def product(x, targets, vectors):
            weights = [variable.value for variable in model.trainable_variables]
            with tf.GradientTape() as tape:
                _, gradients = gradient(x, targets)
            return tape.gradient(gradients, weights, vectors, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        return tf.function(gradient, reduce_retracing=True), tf.function(product, reduce_retracing=True)
    import jax

    def total(weights, fixed, x, targets):
        return loss(model.stateless_call(weights, fixed, x, training=False)[0], targets).sum()

    def product_at(weights, fixed, x, targets, vectors):
        return jax.jvp(lambda w: jax.grad(total)(w, fixed, x, targets), (weights,), (vectors,))[1]

    first, second = jax.jit(jax.value_and_grad(total)), jax.jit(product_at)

    def state():
        variables = model.trainable_variables, model.non_trainable_variables
        return [[variable.value for variable in part] for part in variables]

    return (
        lambda x, targets: first(*state(), x, targets),
        lambda x, targets, vectors: second(*state(), x, targets, vectors),
    )


def linearize(function, x):
    """Returns compiled products of vectors with the Jacobian of a function at one point.

    Args:
        function: Callable that maps a batch of inputs to a batch of outputs.
        x: Array `[*input_shape]`, one input; its dtype is kept.

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

    # Only the vectors are batched. The network itself is evaluated once for each batch of vectors, at one input.
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
    """Returns the value and a vector-Jacobian product; the function must depend on `x` unless it may be `constant`."""
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
    """Returns a tensor of the backend with the dtype of `x`; JAX keeps float64 only within `double_precision`."""
    return keras.ops.convert_to_tensor(x, dtype=getattr(x, "dtype", None))


def _array(x):
    return keras.ops.convert_to_numpy(x)
