"""The compiled operations against float64, where they are used, and what happens where they are not."""

import contextlib
import importlib.machinery
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import allconv_resnet as acr
from allconv_resnet import baselines, cpu, environment, kernels
from allconv_resnet.blocks import ResidualBlock, ScaledResidualBlock
from allconv_resnet.training.engines import steps

compiled = pytest.mark.skipif(
    not kernels.available(), reason=f"the compiled operations are not used: {kernels.reason_against()}"
)
# n, height, width, channels, filters: widths of all remainders modulo 4, and numbers of channels that fill no vector
SHAPES = (
    (1, 1, 1, 1, 1),
    (2, 5, 6, 3, 16),
    (2, 6, 7, 17, 168),
    (3, 4, 4, 48, 64),
    (5, 9, 5, 64, 80),
    (40, 4, 4, 64, 512),
    (3, 32, 32, 64, 64),
)


def normal(*shape, seed=0):
    return tf.cast(np.random.default_rng(seed).standard_normal(shape), tf.bfloat16)


def float64(*tensors):
    return (tf.cast(a, tf.float64).numpy() for a in tensors)


def windows(x):
    """Returns the image under each tap of a 3x3 kernel, as a nested list."""
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return [[padded[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)]


def exact_gradient(x, dy):
    x, dy = float64(x, dy)
    return np.array([[np.einsum("nhwc,nhwk->ck", window, dy) for window in row] for row in windows(x)])


def exact_convolution(x, kernel):
    x, kernel = float64(x, kernel)
    return sum(windows(x)[i][j] @ kernel[i, j] for i in range(3) for j in range(3))


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_computes_the_filter_gradient(shape, threads, monkeypatch):
    monkeypatch.setattr("allconv_resnet.environment.cores", lambda: threads)
    n, height, width, channels, filters = shape
    x, dy = normal(n, height, width, channels), normal(n, height, width, filters, seed=1)
    ours, wanted = kernels.filter_gradient(x, dy), exact_gradient(x, dy)
    assert ours.dtype == tf.bfloat16 and ours.shape == wanted.shape
    # Both roundings of bfloat16, of the factors and of the result, are 2^-9 at most.
    assert np.abs(tf.cast(ours, tf.float64) - wanted).max() <= 6e-3 * np.abs(wanted).max() + 2e-2


@compiled
@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
@pytest.mark.parametrize("threads", [1, 2, 3, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_computes_the_convolution(shape, threads, transposed, monkeypatch):
    monkeypatch.setattr("allconv_resnet.environment.cores", lambda: threads)
    n, height, width, channels, filters = shape
    x, kernel = normal(n, height, width, channels), normal(3, 3, channels, filters, seed=1)
    stored = tf.transpose(kernel[::-1, ::-1], [0, 1, 3, 2]) if transposed else kernel
    ours, wanted = kernels.convolution(x, stored, transposed), exact_convolution(x, kernel)
    assert ours.dtype == tf.bfloat16 and ours.shape == wanted.shape
    error = tf.cast(ours, tf.float64) - wanted
    assert np.abs(error).max() <= 6e-3 * np.abs(wanted).max() + 2e-2
    if np.size(wanted) > 1000:
        assert np.std(error) <= 5e-3 * np.std(wanted)


@compiled
@pytest.mark.parametrize("last", ["add", "relu", "mask"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_last_step_of_a_convolution(shape, last):
    n, height, width, channels, filters = shape
    x, kernel = normal(n, height, width, channels), normal(3, 3, channels, filters, seed=1)
    other = None if last == "relu" else normal(n, height, width, filters, seed=2)
    plain = exact_convolution(x, kernel)
    wanted = {
        "add": lambda: plain + next(float64(other)),
        "relu": lambda: np.maximum(plain, 0),
        "mask": lambda: np.where(next(float64(other)) > 0, plain, 0),
    }[last]()
    ours = next(float64(kernels.convolution(x, kernel, last=last, other=other)))
    assert np.abs(ours - wanted).max() <= 6e-3 * np.abs(plain).max() + 2e-2
    if last == "mask":
        assert not ours[next(float64(other)) <= 0].any()


@compiled
@pytest.mark.parametrize("last", kernels.LAST_STEPS)
def test_the_other_tensor_is_given_where_it_is_used(last):
    other = None if last in ("add", "mask") else normal(2, 4, 4, 6)
    with pytest.raises(ValueError, match="for add and mask alone"):
        kernels.convolution(normal(2, 4, 4, 3), normal(3, 3, 3, 6), last=last, other=other)


@compiled
@pytest.mark.parametrize("last", ["add", "mask"])
@pytest.mark.parametrize("other", [(2, 4, 4, 3), (2, 4, 5, 6), (4, 4, 6)], ids=str)
def test_the_other_tensor_must_have_the_shape_of_the_output(last, other):
    with pytest.raises(tf.errors.InvalidArgumentError, match="shape of the output"):
        kernels.convolution(normal(2, 4, 4, 3), normal(3, 3, 3, 6), last=last, other=normal(*other))


@compiled
def test_a_batch_may_be_empty():
    x = normal(0, 4, 4, 3)
    assert kernels.convolution(x, normal(3, 3, 3, 5)).shape == (0, 4, 4, 5)
    assert kernels.convolution(x, normal(3, 3, 3, 3), transposed=True, last="add", other=x).shape == (0, 4, 4, 3)
    assert not next(float64(kernels.filter_gradient(x, normal(0, 4, 4, 5)))).any()


@compiled
def test_what_is_not_a_number_stays_so():
    x = tf.tensor_scatter_nd_update(normal(1, 4, 4, 64), [[0, 0, 0, 0]], tf.constant([np.nan], tf.bfloat16))
    for last in ("nothing", "relu"):
        assert np.isnan(next(float64(kernels.convolution(x, normal(3, 3, 64, 64), last=last)))).any()


@compiled
def test_the_operations_repeat_themselves_to_the_bit():
    x, dy, kernel = normal(9, 8, 8, 64), normal(9, 8, 8, 64, seed=1), normal(3, 3, 64, 64, seed=2)
    for operation, other in ((kernels.filter_gradient, dy), (kernels.convolution, kernel)):
        assert len({operation(x, other).numpy().tobytes() for _ in range(5)}) == 1


@compiled
@pytest.mark.parametrize(
    ("x", "dy"),
    [((2, 4, 4, 3), (2, 4, 5, 3)), ((2, 4, 4), (2, 4, 4)), ((2, 0, 4, 3), (2, 0, 4, 3)), ((2, 4, 4, 3), (1, 4, 4, 3))],
    ids=str,
)
def test_the_filter_gradient_refuses_other_shapes(x, dy):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have shapes"):
        kernels.filter_gradient(normal(*x), normal(*dy))


@compiled
@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
@pytest.mark.parametrize(
    ("x", "kernel"),
    [
        ((2, 4, 4, 3), (3, 3, 5, 6)),
        ((4, 4, 3), (3, 3, 3, 3)),
        ((2, 4, 4, 3), (3, 3, 3)),
        ((2, 4, 0, 3), (3, 3, 3, 3)),
        ((2, 4, 4, 3), (1, 3, 3, 3)),
        ((2, 4, 4, 3), (3, 5, 3, 3)),
        ((2, 4, 4, 3), (3, 3, 0, 3)),
    ],
    ids=str,
)
def test_the_convolution_refuses_other_shapes(x, kernel, transposed):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have shapes"):
        kernels.convolution(normal(*x), normal(*kernel), transposed)


def operations_of_a_step(block, x):
    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            y = block(x, training=True)
        return tape.gradient(y, block.trainable_variables)

    operations = [operation.type for operation in step.get_concrete_function(x).graph.get_operations()]
    return {
        name: operations.count(name) for name in ("AllconvConvolution", "AllconvFilterGradient", "Conv2D", "MatMul")
    }


@compiled
@pytest.mark.parametrize(("width", "filters"), [(32, 64), (8, 96)])
def test_they_are_used_within_the_context_alone(width, filters):
    block = ResidualBlock(filters, dtype="mixed_bfloat16")
    x = normal(2, width, width, filters)
    block.build(x.shape)
    before = operations_of_a_step(block, x)
    assert before["AllconvConvolution"] == before["AllconvFilterGradient"] == 0 and before["Conv2D"] == 2
    with cpu.compiled_convolutions(), cpu.compiled_convolutions():
        within = operations_of_a_step(block, x)
    # two convolutions, and the gradients with respect to their inputs
    assert within == {"AllconvConvolution": 4, "AllconvFilterGradient": 2, "Conv2D": 0, "MatMul": 0}
    assert operations_of_a_step(block, x) == before
    with pytest.raises(ValueError, match="inside"), cpu.compiled_convolutions():
        raise ValueError("inside")
    assert operations_of_a_step(block, x) == before


def gradients(block, x):
    """Returns the output of a block, and the gradients of its sum of squares, in float64."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = block(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
    return float64(y, *tape.gradient(loss, [x, *block.trainable_variables]))


@compiled
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(("channels", "filters"), [(48, 80), (80, 48)])
def test_the_gradients_of_a_compiled_convolution(channels, filters, graph):
    x, kernel, dy = normal(3, 6, 7, channels), normal(3, 3, channels, filters), normal(3, 6, 7, filters, seed=1)

    def all_of(convolve, *tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors[:2])
            y = convolve(*tensors[:2])
        return y, *tape.gradient(y, tensors[:2], tensors[2])

    ours = (tf.function(all_of) if graph else all_of)(cpu.compiled_convolution, x, kernel, dy)
    exact = (tf.cast(a, tf.float64) for a in (x, kernel, dy))
    theirs = all_of(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"), *exact)
    for a, b in zip(float64(*ours), float64(*theirs), strict=True):
        assert a.shape == b.shape and np.std(a - b) <= 5e-3 * np.std(b)


@compiled
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("kind", [ResidualBlock, ScaledResidualBlock])
def test_a_compiled_block_is_as_exact_as_one_that_is_not(kind, activation):
    x = normal(4, 8, 8, 64)
    block, exact = (
        kind(64, initialization="he", activation=activation, dtype=dtype) for dtype in ("mixed_bfloat16", "float32")
    )
    for each in (block, exact):
        each.build(x.shape)
    exact.set_weights(block.get_weights())
    assert not block.fuses(x)
    plain = gradients(block, x)
    with cpu.compiled_convolutions():
        assert block.fuses(x) == (activation == "relu")
        fused = gradients(block, x)
    for ours, theirs, wanted in zip(fused, plain, gradients(exact, tf.cast(x, tf.float32)), strict=True):
        error, usual = (np.sqrt(np.mean((values - wanted) ** 2)) for values in (ours, theirs))
        # one that is not fused rounds as often as oneDNN's, and minimal filtering has twice the error of a convolution
        assert 0 < error <= (1.5 if activation == "relu" else 2.5) * usual


@compiled
@pytest.mark.parametrize(
    ("arguments", "compiled_ones"),
    [
        ({"filters": 96}, 4),
        ({"strides": 2}, 2),
        ({"activation": "tanh"}, 4),
        ({"activation": keras.layers.LeakyReLU()}, 4),
        ({"shortcut": None}, 4),
        ({"normalization": "batch"}, 4),
        ({"kernel_sizes": (3, 1)}, 2),
        ({"use_bias": True}, 0),
        ({"trainable": False}, 0),
    ],
    ids=str,
)
def test_which_blocks_are_not_fused(arguments, compiled_ones):
    block = ResidualBlock(**{"filters": 64, "dtype": "mixed_bfloat16"} | arguments)
    x = normal(4, 8, 8, 64)
    block.build(x.shape)
    with cpu.compiled_convolutions():
        assert not block.fuses(x)
        assert operations_of_a_step(block, x)["AllconvConvolution"] == compiled_ones


@compiled
@pytest.mark.parametrize(
    ("change", "compiled_ones"),
    [
        (lambda block: setattr(block.conv1, "trainable", False), 2),
        (lambda block: setattr(block.conv2, "activity_regularizer", keras.regularizers.L2(0.1)), 4),
        (lambda block: setattr(block.conv1, "dtype_policy", keras.DTypePolicy("float32")), 2),
    ],
    ids=["frozen", "regularized", "float32"],
)
def test_blocks_with_a_changed_layer_are_not_fused(change, compiled_ones):
    block = ResidualBlock(64, dtype="mixed_bfloat16")
    x = normal(4, 8, 8, 64)
    block.build(x.shape)
    change(block)
    with cpu.compiled_convolutions():
        assert not block.fuses(x)
        assert operations_of_a_step(block, x)["AllconvConvolution"] == compiled_ones


@compiled
@pytest.mark.parametrize(
    ("channels", "dtype", "training", "applies"),
    [
        (48, "mixed_bfloat16", True, True),
        (47, "mixed_bfloat16", True, False),
        (48, "float32", True, False),
        (48, "mixed_bfloat16", False, False),
    ],
)
def test_which_blocks_train_compiled(channels, dtype, training, applies):
    block = ResidualBlock(channels, dtype=dtype)
    x = normal(2, 16, 16, channels)
    block.build(x.shape)
    with cpu.compiled_convolutions():
        graph = tf.function(lambda x: block(x, training=training)).get_concrete_function(x).graph
    assert any(operation.type == "AllconvConvolution" for operation in graph.get_operations()) == applies


@compiled
def test_the_training_program_trains_with_them_and_evaluates_without():
    model = acr.AllConvResNet((8, 8, 3), 10, stem=(48, 3, 1, 1), stages=[(1, 48, 1)], dtype="mixed_bfloat16")
    optimizer, strategy = acr.Momentum(0.1), tf.distribute.get_strategy()
    optimizer.build(model.trainable_variables)
    train = steps.make_train_step(strategy, model, optimizer, steps.Totals(), 2)
    batch = tf.zeros((2, 8, 8, 3)), tf.zeros(2, tf.int64)
    evaluate = steps.make_evaluate_step(strategy, model)

    def count(function, *arguments):
        graph = function.get_concrete_function(*arguments).graph
        return [operation.type for operation in graph.get_operations()].count("AllconvConvolution")

    assert count(train, *batch) == 4
    with cpu.compiled_convolutions():
        assert count(evaluate, *batch, tf.ones(2)) == 0


@compiled
def test_the_peers_train_with_them():
    for make, arguments in ((baselines.airbench, {"widths": (64, 64, 64)}), (baselines.resnet, {"depth": 8})):
        model = make(num_classes=10, dtype="mixed_bfloat16", **arguments)
        with cpu.compiled_convolutions():
            graph = tf.function(lambda x, model=model: model(x, training=True)).get_concrete_function(
                tf.zeros((2, 32, 32, 3))
            )
        assert "AllconvConvolution" in {operation.type for operation in graph.graph.get_operations()}


@compiled
@pytest.mark.parametrize("size", [(None, None), (32, 32)], ids=str)
def test_fit_changes_the_weights_nearly_as_it_does_without_them(size):
    def trained(context):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((*size, 64)),
                ResidualBlock(64, initialization="he", dtype="mixed_bfloat16"),
                keras.layers.GlobalAveragePooling2D(dtype="float32"),
                keras.layers.Dense(4, dtype="float32"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.002), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = np.random.default_rng(0).standard_normal((64, 32, 32, 64)), np.arange(64) % 4
        before = model.get_weights()
        with context:
            model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return [b - a for a, b in zip(before, model.get_weights(), strict=True)]

    for ours, plain in zip(trained(cpu.compiled_convolutions()), trained(contextlib.nullcontext()), strict=True):
        assert 0 < np.linalg.norm(ours - plain) <= 0.05 * np.linalg.norm(plain)


def test_without_the_operations_the_layers_compute_with_those_of_tensorflow(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    block = ResidualBlock(96, dtype="mixed_bfloat16")
    x = normal(2, 8, 8, 96)
    block.build(x.shape)
    with cpu.compiled_convolutions():
        operations = operations_of_a_step(block, x)
    assert operations == {"AllconvConvolution": 0, "AllconvFilterGradient": 0, "Conv2D": 2, "MatMul": 24}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"avx2"}, "does not have AVX512-BF16"),
        ({"avx512_bf16", "amx_bf16"}, "has AMX"),
    ],
)
def test_why_they_are_not_used(flags, words, monkeypatch):
    monkeypatch.setattr("allconv_resnet.environment.processor", lambda: ("a processor", flags))
    assert words in kernels.reason_against()


@compiled
@pytest.mark.parametrize("threads", [0, 1])
def test_they_use_as_many_threads_as_tensorflow(threads, monkeypatch):
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: threads)
    graph = tf.function(kernels.filter_gradient).get_concrete_function(normal(2, 4, 4, 3), normal(2, 4, 4, 3)).graph
    (operation,) = (each for each in graph.get_operations() if each.type == "AllconvFilterGradient")
    assert operation.get_attr("threads") == (threads or environment.cores())


def test_many_cores_are_left_to_tensorflow(monkeypatch):
    monkeypatch.setattr("allconv_resnet.environment.processor", lambda: ("a processor", {"avx512_bf16"}))
    monkeypatch.setattr("allconv_resnet.environment.cores", lambda: 17)
    assert "more than 16 cores" in kernels.reason_against()


@pytest.mark.parametrize("content", [None, b"", b"not a library"], ids=["none", "empty", "damaged"])
def test_an_installation_without_a_library_that_can_be_loaded_says_so(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / f"compiled{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(content)
    monkeypatch.setattr("allconv_resnet.environment.processor", lambda: ("a processor", {"avx512_bf16"}))
    monkeypatch.setattr("allconv_resnet.environment.cores", lambda: 2)
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(kernels, "_operations", kernels._operations.__wrapped__)
    assert "were not compiled" in kernels.reason_against()


@pytest.mark.parametrize("name", kernels.OPERATIONS)
def test_a_library_of_an_older_version_is_not_used(name, tmp_path, monkeypatch):
    (tmp_path / f"compiled{importlib.machinery.EXTENSION_SUFFIXES[0]}").touch()
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(tf, "load_op_library", lambda path: types.SimpleNamespace(**{name: print}))
    assert kernels._operations.__wrapped__() is None
