"""The compiled operations against float64, and the reasons for which they are not used."""

import importlib.machinery
import types

import numpy as np
import pytest
import tensorflow as tf

from allconv_resnet import environment, kernels

compiled = pytest.mark.skipif(
    not kernels.available(), reason=f"the compiled operations are not used: {kernels.reason_against()}"
)
# n, height, width, channels, filters: widths of all remainders modulo 4, and numbers of channels that fill no vector.
# AMX is used for 8 images or more.
SHAPES = (
    (1, 1, 1, 1, 1),
    (9, 1, 1, 1, 1),
    (8, 5, 6, 3, 16),
    (33, 6, 7, 17, 168),
    (3, 4, 4, 48, 64),
    (31, 9, 5, 64, 80),
    (40, 4, 4, 64, 512),
    (8, 32, 32, 64, 64),
)


@pytest.fixture(autouse=True, params=["AVX512-BF16", "AMX"])
def instructions(request, monkeypatch):
    """Runs each test with both kinds of instructions, where the processor has them."""
    if request.param == "AMX" and not kernels.has_amx():
        pytest.skip("the processor has no AMX")
    monkeypatch.setattr(kernels, "has_amx", lambda: request.param == "AMX")


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
@pytest.mark.parametrize("images", [1, 8])
def test_what_is_not_a_number_stays_so(images):
    x = tf.tensor_scatter_nd_update(normal(images, 4, 4, 64), [[0, 0, 0, 0]], tf.constant([np.nan], tf.bfloat16))
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


def test_why_they_are_not_used(monkeypatch):
    monkeypatch.setattr("allconv_resnet.environment.processor", lambda: ("a processor", {"avx2"}))
    assert "does not have AVX512-BF16" in kernels.reason_against()


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


@compiled
def test_the_arguments_of_the_operations_are_listed():
    operations = kernels._operations()
    assert {name: kernels._arguments(operations, name) for name in kernels.OPERATIONS} == kernels.OPERATIONS


def of_an_older_version(operations, without):
    """Returns a library that lacks an operation, or an argument of the first one."""
    made = {
        name: eval(f"lambda {', '.join(sorted(arguments - {without}))}, name=None: None")
        for name, arguments in operations.items()
    }
    return types.SimpleNamespace(**{name: function for name, function in made.items() if name != without})


@pytest.mark.parametrize("without", [None, *kernels.OPERATIONS, "amx"])
def test_a_library_of_an_older_version_is_not_used(without, tmp_path, monkeypatch):
    (tmp_path / f"compiled{importlib.machinery.EXTENSION_SUFFIXES[0]}").touch()
    library = of_an_older_version(kernels.OPERATIONS, without)
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(tf, "load_op_library", lambda path: library)
    assert kernels._operations.__wrapped__() is (None if without else library)


@pytest.mark.parametrize(
    ("images", "channels", "amx", "faster"),
    [(1, 48, False, True), (15, 48, True, False), (16, 48, True, True), (None, 48, True, True), (16, 47, False, False)],
)
def test_where_the_operations_are_faster(images, channels, amx, faster, monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: True)
    monkeypatch.setattr(kernels, "has_amx", lambda: amx)
    assert kernels.faster(images, channels, 64) == kernels.faster(images, 64, channels) == faster
