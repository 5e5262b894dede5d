"""Theorem 3.2: a residual network of any width fits any labels of any distinct points."""

import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import expressivity
from allconv_resnet.theory.commands.reporting import load_images
from allconv_resnet.theory.hardt_ma.embedding import embed
from allconv_resnet.theory.hardt_ma.separation import separate, surrogates

memorize, predict_labels = expressivity.memorize, expressivity.predict_labels
JAX = keras.backend.backend() == "jax"  # which compiles every model for seconds


@pytest.fixture(autouse=True, scope="module")
def float64_everywhere():
    """Enables float64 on JAX, which has it only on request."""
    if not JAX:
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def silent(stage, done, total):
    pass


def check(x, labels, width, **options):
    """Memorizes, checks the predictions and the report, and returns the model."""
    model = memorize(x, labels, width, **options)
    report = model.report
    np.testing.assert_array_equal(predict_labels(model, x), labels)
    if report.input_precision == "float32" and not JAX:  # Keras's own predict rounds arrays to float32
        np.testing.assert_array_equal(model.predict(x, verbose=0).argmax(axis=-1), labels)
    n, d, r = report.distinct_points, x[0].size, report.classes
    assert n == len(np.unique(x.reshape(len(x), -1), axis=0)) and report.points == len(x)
    assert report.blocks >= -(-n // width)
    assert report.parameters == model.count_params()
    hidden, stream = (width, width) if report.construction == "points" else (2, width + 1)
    assert report.neurons == hidden * report.blocks
    if report.outputs == "logits":
        size = d + d * stream + stream + report.blocks * (2 * hidden * stream + hidden) + r * (stream + 1)
        assert report.parameters == size
    else:
        np.testing.assert_array_equal(model.predict_on_batch(x), np.eye(r)[labels])
    assert model.layers[-1].dtype == report.precision
    assert report.smallest_margin > 0 and 0 <= report.rounding <= 0.25
    return model


def separated_grid(n, d):
    """Returns a strategy for points on a coarse grid, where distinct points are far apart and duplicates are likely."""
    return hnp.arrays(np.float64, (n, d), elements=st.integers(-50, 50).map(float))


@settings(max_examples=5 if JAX else 20, deadline=None)
@given(
    data=st.data(),
    n=st.integers(1, 40),
    d=st.integers(1, 6),
    width=st.integers(1, 12),
    classes=st.integers(1, 12),
    construction=st.sampled_from(["points", "sweep"]),
    outputs=st.sampled_from(["logits", "unit"]),
)
def test_any_points(data, n, d, width, classes, construction, outputs):
    x = data.draw(separated_grid(n, d))
    scale = 10.0 ** data.draw(st.integers(-6, 6))
    offset = data.draw(st.sampled_from([0.0, 1.0, -1e3, 1e6]))
    _, group = np.unique(x, axis=0, return_inverse=True)  # equal points have equal labels
    by_group = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    options = {"num_classes": classes, "construction": construction, "outputs": outputs}
    check(scale * (x + offset), by_group[group.ravel()], width, **options)


@settings(max_examples=3 if JAX else 12, deadline=None)
@given(
    x=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.uint8, np.int16]),
        st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3)),
    ),
    width=st.integers(1, 5),
    seed=st.integers(0, 9),
)
@example(x=np.array([[[0.0]], [[1e-6]], [[1e6]]]), width=1, seed=0)
@example(x=np.array([[[1e300]], [[-1e300]], [[0.0]]]), width=2, seed=0)
@example(x=np.array([[[1e-300]], [[-1e-300]], [[0.0]]]), width=2, seed=0)
def test_any_floats_are_fitted_or_refused_by_name(x, width, seed):
    """Arbitrary floats, which may be closer than rounding, give a correct network or an error that names two points."""
    assume(np.isfinite(x).all())
    _, group = np.unique(x.reshape(len(x), -1), axis=0, return_inverse=True)
    labels = np.random.default_rng(seed).integers(0, 3, len(x))[group.ravel()]
    try:
        check(x, labels, width)
    except BadInput as error:
        assert "must differ enough for construction=" in str(error)


@pytest.mark.parametrize("options", [{}] if JAX else [{}, {"construction": "sweep", "outputs": "unit"}], ids=str)
@pytest.mark.parametrize(
    ("x", "width"),
    [
        (np.zeros((1, 3)), 4),  # one point, at the origin
        (np.array([[-1.0], [0.0], [1.0]]), 1),  # one at the center of the others
        (np.arange(70.0)[:, None] * np.ones(5), 64),  # on a line: all neurons of a block point the same way
        (np.c_[np.cos(np.arange(60)), np.sin(np.arange(60))], 3),  # equal norms
        (np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2), 1),  # many are equal on an axis
        (np.concatenate([np.eye(20), -np.eye(20)]), 2),
        (np.eye(30)[:, :, None, None], 50),  # n < width
        (np.array([[0, 1e-6], [0, 2e-6], [1e6, 0], [-1e6, 0], [1, 1]]), 2),
        (np.random.default_rng(0).normal(size=(50, 4)) * 10.0 ** np.arange(-4, 4, 2), 4),
        (np.array([[False, False], [False, True], [True, False], [True, True]]), 2),
        (np.random.default_rng(0).normal(size=(40, 7)).astype(np.float16), 5),
    ],
)
def test_hand_picked_points(x, width, options):
    labels = np.random.default_rng(1).integers(0, 4, len(x))
    assert check(x, labels, width, num_classes=4, **options).report.classes == 4


def test_full_blocks_on_ordinary_data():
    x = np.random.default_rng(0).normal(size=(300, 20))
    report = check(x, np.arange(300) % 7, 16).report
    assert report.blocks == 19 and report.precision == "float32"


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scale_changes_nothing(factor):
    x, labels = np.random.default_rng(0).normal(size=(200, 5)), np.random.default_rng(1).integers(0, 3, 200)
    plain, scaled = check(x, labels, 8).report, check(factor * x, labels, 8).report
    for field in ("blocks", "parameters", "precision", "input_precision"):
        assert getattr(plain, field) == getattr(scaled, field)
    assert scaled.smallest_margin == pytest.approx(plain.smallest_margin, rel=1e-3)


def test_duplicates():
    x = np.array([[1.0, 2.0], [0.0, 0.5], [1.0, 2.0], [-0.0, 0.5], [3.0, 3.0]])
    report = check(x, np.array([1, 0, 1, 0, 2]), 2).report
    assert (report.points, report.distinct_points) == (5, 3)
    with pytest.raises(BadInput, match=r"2 conflicts: x\[0\] and x\[2\] with labels 1 and 0; x\[1\] and x\[3\]"):
        memorize(x, [1, 0, 0, 1, 2], 2)


def test_more_classes_than_surrogates_on_axes():
    labels = np.arange(300)
    check(np.random.default_rng(0).normal(size=(300, 4)), labels, 4)
    check(np.random.default_rng(0).normal(size=(60, 4)), labels[:60], 1)


@pytest.mark.parametrize(("classes", "width"), [(1, 1), (2, 1), (3, 1), (10, 1), (4, 2), (5, 2), (129, 64), (1000, 3)])
def test_surrogates_are_as_far_apart_as_stated(classes, width):
    q, distance = surrogates(classes, width)
    assert q.shape == (classes, width) and np.linalg.norm(q, axis=1).max() <= 1 + 1e-12
    distances = np.linalg.norm(q[:, None] - q, axis=-1)[~np.eye(classes, dtype=bool)]
    assert distances.min(initial=np.inf) == pytest.approx(distance)


def test_precision_follows_the_margin():
    line = np.arange(800.0)[:, None]
    labels = np.random.default_rng(0).integers(0, 100, 800)
    assert check(line, labels, 1).report.precision == "float64"
    with pytest.raises(
        BadInput,
        match=r"precision='float32'.*Received: x\[\d+\] and x\[\d+\], whose margin is too small .* in float32",
    ):
        memorize(line, labels, 1, precision="float32")
    close = np.array([[1.0], [1.0 + 1e-9], [2.0]])  # equal in float32
    assert check(close, np.array([0, 1, 0]), 1).report.input_precision == "float64"
    with pytest.raises(
        BadInput, match=r"x\[[01]\] and x\[[01]\], whose margin is too small for this construction in float64"
    ):
        memorize(np.array([[1.0], [1.0 + 2e-16], [1e6]]), [0, 1, 0], 1)


def test_fewer_neurons_a_block_where_rounding_would_grow():
    line, labels = np.arange(100.0)[:, None], np.random.default_rng(0).integers(0, 5, 100)
    assert check(line, labels, 64).report.blocks == 2  # in float64
    report = check(line, labels, 64, precision="float32").report
    assert report.precision == "float32" and report.blocks > 2


def test_points_reach_their_surrogates_within_the_stated_rounding():
    x, labels = np.random.default_rng(0).normal(size=(200, 6)), np.random.default_rng(1).integers(0, 5, 200)
    model = check(x, labels, 6)
    hidden = keras.Model(model.input, model.get_layer("blocks").output).predict(x, verbose=0)
    readout, bias = model.get_layer("readout").get_weights()
    q = readout.T * (-bias / np.sum(readout**2, axis=0) * 2)[:, None]  # readout = 2 q / rho^2, bias = -|q|^2 / rho^2
    reach = np.linalg.norm(hidden - q[labels], axis=1).max()
    assert reach <= model.report.rounding * np.linalg.norm(q[0] - q[1]) / 2


@pytest.mark.parametrize("outputs", ["logits", "unit"])
def test_the_sweep_fits_width_points_with_two_neurons(outputs):
    n, width = 600, 12
    x, labels = np.random.default_rng(0).normal(size=(n, 40)), np.random.default_rng(1).integers(0, 10, n)
    report = check(x, labels, width, construction="sweep", outputs=outputs).report
    assert report.precision == "float32" and report.blocks <= 1.15 * n / width
    in_blocks = report.blocks * (4 * width + 6)
    assert in_blocks < 5.5 * n < (2 * width + 1) * n / 3  # a third of what `points` needs


@pytest.mark.parametrize("construction", ["points", "sweep"])
def test_one_class_alone(construction):
    x = np.random.default_rng(0).normal(size=(6, 5))
    model = memorize(x, np.zeros(6, int), 2, construction=construction, outputs="unit")
    np.testing.assert_array_equal(model.predict(x, verbose=0), np.ones((6, 1)))


def test_the_sweep_is_its_formula():
    """An independent evaluation of the two neurons of each block, in float64 on the weights of the network."""
    x, labels = np.random.default_rng(0).normal(size=(90, 7)), np.random.default_rng(1).integers(0, 4, 90)
    model = memorize(x, labels, 5, construction="sweep", precision="float64")
    U, s, V = model.get_layer("blocks").get_weights()
    center, kernel, bias = model.get_layer("projection").get_weights()
    h = (x.astype("float32") - center) @ kernel + bias
    assert np.all(h[:, -1] == 0)
    finished = np.zeros(len(x), bool)
    for u, t, v in zip(U, s, V, strict=True):
        before, active = h, np.maximum(h @ u.T + t, 0)
        h = h + active @ v.T
        group = active[:, 1] > 0
        assert not np.any(group & finished)  # no point is moved twice
        np.testing.assert_array_equal(h[~group], before[~group])
        np.testing.assert_allclose(h[group, -1], labels[group] - 1.5, atol=1e-6)
        np.testing.assert_array_equal(h[:, 1:-1], before[:, 1:-1])
        finished |= group
    assert finished.all()
    np.testing.assert_allclose(h[:, -1], labels - 1.5, atol=1e-6)


def test_points_in_float64_need_predict_labels():
    """`model.predict` rounds to float32, which changes labels where the points differ in float64 alone."""
    x = 1 + 1e-9 * np.random.default_rng(0).normal(size=(200, 1))
    labels = np.random.default_rng(1).integers(0, 10, 200)
    model = memorize(x, labels, 4, num_classes=10)
    assert model.report.input_precision == "float64"
    np.testing.assert_array_equal(predict_labels(model, x), labels)
    np.testing.assert_array_equal(model.predict_on_batch(x).argmax(-1), labels)
    assert np.count_nonzero(model.predict(x, verbose=0).argmax(-1) != labels) > 100
    assert "model.predict` rounds its input to float32" in " ".join(memorize.__doc__.split())


def test_memory_is_linear_in_n():
    n, width = 12_000, 4
    x = np.random.default_rng(0).normal(size=(n, 8))
    tracemalloc.start()
    z = embed(x, width, "float32", "float64", 0, 0.0)
    separate(z.z, np.zeros(n, int), 1, "float64", z.error, False, silent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**26 < 8 * n * n / 5


def test_theorem_count():
    expected = 3072 * 11 + 4546 * (2 * 11**2 + 11) + 110 + 100
    assert expressivity.theorem_parameters(50_000, 10, 3072) == expected
    assert expressivity.theorem_parameters(1, 1, 1) == 1 + 3 + 1 + 1


def test_saved_model_predicts_the_same_in_a_new_process(tmp_path, run_python):
    x = np.random.default_rng(0).normal(size=(300, 4, 2))
    labels = np.random.default_rng(1).integers(0, 10, 300)
    memorize(x, labels, 5).save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    program = """
import sys, keras, numpy as np
from allconv_resnet.theory import expressivity
model, data = keras.saving.load_model(sys.argv[1]), np.load(sys.argv[2])
print("wrong:", np.count_nonzero(expressivity.predict_labels(model, data["x"]) != data["labels"]))
"""
    done = run_python("-c", program, tmp_path / "model.keras", tmp_path / "data.npz")
    assert "wrong: 0" in done.stdout, done.stderr


@pytest.mark.slow
def test_jax_backend(run_python):
    pytest.importorskip("jax")
    program = """
import sys, numpy as np
from allconv_resnet.theory import expressivity, linear
assert "tensorflow" not in sys.modules
x, labels = np.random.default_rng(0).normal(size=(200, 5)), np.arange(200) % 9
model = expressivity.memorize(x, labels, 8)
print("wrong:", np.count_nonzero(model.predict(x, verbose=0).argmax(-1) != labels), model.report.precision)
try:
    expressivity.memorize(np.array([[1.0], [1.0 + 1e-9], [2.0]]), [0, 1, 0], 1)
except ValueError as error:
    print(error)
"""
    done = run_python("-c", program, KERAS_BACKEND="jax", JAX_ENABLE_X64="0")
    assert "wrong: 0 float32" in done.stdout and "JAX_ENABLE_X64=1" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("x", "labels", "options", "message"),
    [
        (np.zeros((0, 3)), [], {}, r"at least one point and one feature. Received: shape \[0, 3\]"),
        (np.zeros((3, 0)), [0, 1, 2], {}, r"Received: shape \[3, 0\]"),
        (np.zeros(3), [0, 1, 2], {}, r"x must be \[n, ...\].*Received: shape \[3\]"),
        (np.array([["a"], ["b"]]), [0, 1], {}, "x must hold real numbers"),
        (np.array([[1j], [2j]]), [0, 1], {}, "x must hold real numbers.*complex128"),
        (np.array([[0.0], [np.nan]]), [0, 1], {}, r"x must be finite. Received: NaN or infinity in x\[1\]"),
        (np.array([[-np.inf], [0.0]]), [0, 1], {}, r"in x\[0\]"),
        (np.eye(2), [0, 1, 2], {}, r"labels must be 2 integers.*Received: shape \[3\]"),
        (np.eye(2), [0.0, 1.0], {}, "labels must be 2 integers.*dtype float64"),
        (np.eye(2), [[0], [1]], {}, r"Received: shape \[2, 1\]"),
        (np.eye(2), [0, -1], {}, r"labels must lie in \[0, 1\). Received: labels\[1\]=-1"),
        (np.eye(2), [0, 5], {"num_classes": 3}, r"labels must lie in \[0, 3\). Received: labels\[1\]=5"),
        (np.eye(2), [0, 1], {"num_classes": 0}, "num_classes must be an integer of at least 1"),
        (np.eye(2), [0, 1], {"width": 0}, "width must be an integer of at least 1. Received: width=0"),
        (np.eye(2), [0, 1], {"width": 2.0}, "width must be an integer of at least 1. Received: width=2.0"),
        (np.eye(2), [0, 1], {"seed": -1}, "seed must be an integer of at least 0. Received: seed=-1"),
        (np.eye(2), [0, 1], {"precision": "half"}, "precision must be one of .* Received: precision='half'"),
        (np.eye(2), [0, 1], {"construction": "bump"}, "one of points, sweep. Received: construction='bump'"),
        (np.eye(2), [0, 1], {"outputs": "one-hot"}, "one of logits, unit. Received: outputs='one-hot'"),
    ],
)
def test_bad_input(x, labels, options, message):
    with pytest.raises(BadInput, match=message):
        memorize(x, labels, **{"width": 2, **options})


def test_labels_are_predicted_in_batches_of_at_least_one():
    with pytest.raises(BadInput, match=r"batch_size must be an integer of at least 1. Received: batch_size=0"):
        predict_labels(None, np.eye(2), batch_size=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("construction", "outputs", "width", "most"),
    [("points", "logits", 16, 1_750_000), ("points", "logits", 64, 6_700_000), ("sweep", "unit", 16, 300_000)],
)
def test_every_cifar_training_image_with_random_labels(
    prepared, tmp_path, run_python, construction, outputs, width, most
):
    images, _ = load_images("cifar10", prepared)
    labels = np.random.default_rng(0).integers(0, 10, len(images))
    model = memorize(images, labels, width, construction=construction, outputs=outputs)
    np.testing.assert_array_equal(predict_labels(model, images), labels)
    assert len(images) == 50_000 and model.report.precision == "float32"
    assert model.report.parameters <= most
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for saved, weight in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, weight)
    if construction != "sweep":
        return
    program = """
import sys, keras, numpy as np
from allconv_resnet.theory import expressivity
from allconv_resnet.theory.commands.reporting import load_images
images, _ = load_images("cifar10", sys.argv[2])
labels = np.random.default_rng(0).integers(0, 10, len(images))
model = keras.saving.load_model(sys.argv[1])
print("wrong:", np.count_nonzero(expressivity.predict_labels(model, images) != labels))
"""
    done = run_python("-c", program, tmp_path / "model.keras", prepared)
    assert "wrong: 0" in done.stdout, done.stderr
