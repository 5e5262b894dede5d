"""The networks of the comparison: counts of their papers, shapes, gradients, saving."""

import keras
import numpy as np
import pytest

from allconv_resnet import Momentum, baselines, recipes, standardize
from allconv_resnet.baselines.airbench94 import PartialIdentity
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes.parts.network import Baseline

TINY = {
    "all_cnn_c": lambda **k: baselines.all_cnn_c(4, (16, 16, 3), **k),
    "resnet": lambda **k: baselines.resnet(4, 8, input_shape=(16, 16, 3), **k),
    "resnet, not normalized": lambda **k: baselines.resnet(4, 8, None, (16, 16, 3), **k),
    "densenet_bc": lambda **k: baselines.densenet_bc(4, 10, 4, (16, 16, 3), **k),
    "airbench": lambda **k: baselines.airbench(4, (4, 8, 8), input_shape=(26, 26, 3), **k),
}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(
    "make, expected",
    [
        (baselines.all_cnn_c, 1_369_738),  # "1.4M", table 4 of Springenberg et al.
        (baselines.resnet, 269_722),  # "0.27M", table 6 of He et al.
        (lambda: baselines.resnet(depth=32), 464_154),  # "0.46M"
        (lambda: baselines.resnet(depth=56), 853_018),  # "0.85M"
        (lambda: baselines.resnet(depth=110), 1_727_962),  # "1.7M"
        (baselines.densenet_bc, 769_162),  # "0.8M", table 2 of Huang et al.
        (baselines.airbench, 1_971_352),  # "1.97M", section 3.1 of Jordan
    ],
)
def test_parameters_are_those_of_the_papers(make, expected):
    assert trainable(make()) == expected


def test_layers_that_count_are_as_many_as_the_names_say():
    def weighted(model):
        return sum(isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) for layer in model.layers)

    assert weighted(baselines.all_cnn_c()) == 9
    assert weighted(baselines.resnet(depth=110)) == 110
    assert weighted(baselines.densenet_bc()) == 100


@pytest.mark.parametrize("name", TINY)
def test_trains_saves_and_is_fixed_by_its_seed(name, tmp_path):
    rng = np.random.default_rng(0)
    size = TINY[name](seed=1).input_shape[1]
    images = rng.standard_normal((32, size, size, 3)).astype("float32")
    labels = rng.integers(0, 4, 32)
    model, twin, other = TINY[name](seed=1), TINY[name](seed=1), TINY[name](seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), twin.get_weights(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))

    before = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    model.compile(Momentum(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(images, labels, batch_size=32, epochs=12, verbose=0).history["loss"]
    assert min(losses[-3:]) < losses[0]
    after = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-5)


def test_all_logits_of_all_cnn_c_start_alive():
    """They have a ReLU after them, and none comes back to an image or a gradient once it is dead for all."""
    images = np.random.default_rng(0).standard_normal((64, 32, 32, 3)).astype("float32")
    for seed in range(3):
        assert baselines.all_cnn_c(seed=seed).predict(images, verbose=0).min() > 0.5


def test_shortcut_keeps_every_second_pixel_and_adds_zeros():
    x = np.arange(2 * 4 * 4 * 2, dtype="float32").reshape(2, 4, 4, 2)
    y = keras.ops.convert_to_numpy(baselines.IdentityShortcut()(x))
    np.testing.assert_array_equal(y[..., 1:3], x[:, ::2, ::2])
    assert y.shape == (2, 2, 2, 4) and not y[..., [0, 3]].any()


def test_convolutions_that_halve_the_image_are_centred_on_the_pixels_of_the_shortcut():
    for size in (32, 15):
        model = baselines.resnet(depth=8, input_shape=(size, size, 3))
        border, convolution = (
            next(layer for layer in model.layers if found(layer))
            for found in (
                lambda layer: isinstance(layer, keras.layers.ZeroPadding2D),
                lambda layer: getattr(layer, "strides", 1) == (2, 2) and hasattr(layer, "kernel"),
            )
        )
        kernel = np.zeros((3, 3, 16, 32), "float32")
        kernel[1, 1, range(16), range(8, 24)] = 1  # the shortcut's place for the old channels
        convolution.kernel.assign(kernel)
        x = np.random.default_rng(0).standard_normal((2, size, size, 16)).astype("float32")
        y = convolution(border(x))
        np.testing.assert_allclose(y, baselines.IdentityShortcut()(x), atol=1e-6)


def test_logits_stay_in_float32():
    for name, make in TINY.items():
        assert make(dtype="mixed_bfloat16").output.dtype == "float32", name


def test_networks_of_another_depth_are_refused():
    for depth in (4, 12):
        with pytest.raises(BadInput, match=rf"6m \+ 4.*depth={depth}"):
            baselines.densenet_bc(depth=depth)
    for depth in (2, 18):
        with pytest.raises(BadInput, match=rf"6n \+ 2.*depth={depth}"):
            baselines.resnet(depth=depth)
    with pytest.raises(BadInput, match="normalization='layer'"):
        baselines.resnet(normalization="layer")


@pytest.mark.parametrize("recipe", recipes.COMPARED, ids=lambda recipe: recipe.name)
def test_a_recipe_builds_its_network(recipe):
    names = {"all_cnn_c", "resnet20", "resnet110", "densenet_bc_100_12"}
    assert (recipe.build_model().name in names) == isinstance(recipe.network, Baseline)
    assert recipe.build_optimizer().nesterov == (recipe.name == "densenet-bc")
    assert recipe.schedule.boundaries[-1] < recipe.run.steps


@pytest.mark.parametrize(
    "recipe, batch, epochs, drops, rate, weight_decay",
    [
        (recipes.ALL_CNN_C, 128, 350, (200, 250, 300), 0.05, 1e-3),  # Springenberg et al., section 3.1
        (recipes.RESNET20, 128, 164, (82, 123), 0.1, 1e-4),  # He et al., section 4.2: 64k steps, drops at 32k and 48k
        (recipes.RESNET110, 128, 164, (82, 123), 0.1, 1e-4),
        (recipes.DENSENET_BC, 64, 300, (150, 225), 0.1, 1e-4),  # Huang et al., section 4.2
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_recipe_is_that_of_its_paper(recipe, batch, epochs, drops, rate, weight_decay):
    run, schedule, optimizer = recipe.run, recipe.schedule, recipe.optimizer
    assert (run.batch_size, schedule.learning_rate, optimizer.weight_decay) == (batch, rate, weight_decay)
    assert [round(step * batch / 50_000) for step in (*schedule.boundaries, run.steps)] == [*drops, epochs]
    assert (optimizer.momentum, schedule.decay_factor, optimizer.clip_norm) == (0.9, 0.1, None)
    assert recipe.data.crop.flip


@pytest.mark.parametrize("recipe", (*recipes.TWENTY_MINUTES, recipes.SIXTY_MINUTES[1]), ids=lambda recipe: recipe.name)
def test_a_recipe_within_some_minutes_drops_at_the_same_parts(recipe):
    longer = recipes.RECIPES[recipe.name.rpartition("-")[0].removesuffix("-plain")]
    parts, whole = ([boundary / r.run.steps for boundary in r.schedule.boundaries] for r in (recipe, longer))
    np.testing.assert_allclose(parts, whole, atol=1e-3)
    assert -(-recipe.run.steps // recipe.run.evaluate_every) == 8


@pytest.mark.parametrize("recipe", recipes.SMALL_ABLATIONS, ids=lambda recipe: recipe.name)
def test_a_small_ablation_changes_the_network_alone(recipe):
    base = recipes.SMALL_4000.fields()
    changed = {field for field, value in recipe.fields().items() if value != base[field]}
    assert changed and changed <= {"initialization", "trainable_head", "normalization", "shortcut", "stages"}
    assert recipe.build_model().count_params() > 0


def test_the_fast_recipe_keeps_to_the_family():
    recipe = recipes.CIFAR10_FAST
    network = recipe.network
    assert (network.normalization, network.shortcut, network.activation) == (None, "identity", "relu")
    assert not network.trainable_head and not network.use_bias
    first = 3 * 27 + 27 * 96 + 96 * 96 + 96 * 192 + 3 * 192 * 192 + 192 * 384 + 384 * 384  # the stem's and each C1
    second = 2 * 96 * 96 + 4 * 192 * 192 + 2 * 384 * 384
    assert recipe.build_model().count_params() == 9 * first + second + 384 * 10


def test_fields_of_the_papers_network_are_refused_for_others():
    with pytest.raises(
        BadInput, match=r"initialization is a field of network allconv_resnet, but .* has network resnet"
    ):
        recipes.RESNET20.replace(initialization="he")
    with pytest.raises(BadInput, match="network must be one of"):
        recipes.RESNET20.replace(network="vgg")


def test_the_first_filters_of_airbench_are_the_identity_and_its_biases_learn_faster():
    kernel = keras.ops.convert_to_numpy(PartialIdentity(seed=1)((3, 3, 4, 6)))
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 4)).astype("float32")
    y = keras.ops.convert_to_numpy(keras.ops.conv(x, kernel, padding="same", data_format="channels_last"))
    np.testing.assert_allclose(y[..., :4], x, rtol=1e-6)
    assert np.abs(kernel[..., 4:]).max() <= 1 / 6 and kernel[..., 4:].std() > 0.05

    model = keras.Sequential([keras.Input((4,)), baselines.Bias(speed=64.0)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(np.zeros((8, 4)), np.full((8, 4), 4.0), batch_size=8, verbose=0)
    # The gradient with respect to the bias itself is -2 * 4 / 4, so that 0.5 * 64 * 2 is the change.
    np.testing.assert_allclose(model.predict(np.zeros((1, 4)), verbose=0), 64.0)


def test_airbench_whitens_the_patches_of_its_images_with_both_signs():
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 3)).astype("uint8")
    model = baselines.airbench(4, (4, 8, 8), input_shape=(28, 28, 3), images=images)
    patches = keras.ops.convert_to_numpy(model.get_layer("stem")(keras.ops.convert_to_numpy(standardize(images))))
    np.testing.assert_allclose(patches[..., :12], -patches[..., 12:], rtol=1e-6)
    rows = patches[..., :12].reshape(-1, 12)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(12), atol=0.02)


@pytest.mark.parametrize(
    ("recipe", "rate"), [(recipes.AIRBENCH94, 11.5), (recipes.AIRBENCH_60, 10.0)], ids=["94", "60"]
)
def test_airbench_takes_the_steps_of_its_paper(recipe, rate):
    """The reference is Jordan's program: SGD of PyTorch on the sum over 1,024 images, and 64 times the rate for biases.

    Our layer `Bias` adds 8 times its variable, so its gradient has a factor of 8 too.
    """
    steps, momentum, weight_decay = recipe.run.steps, 0.85, 0.0153
    rise = int(0.23 * steps)
    scale = 1024 * (1 + 1 / (1 - momentum))
    rate, weight_decay = rate / scale, weight_decay * 1024 / scale
    groups = [(rate, weight_decay / rate), (64 * rate, weight_decay / (64 * rate))]
    theirs, velocities = [np.array([0.5, -1.5]), np.array([0.3, 2.0])], [0.0, 0.0]
    kernel, bias = keras.Variable(theirs[0], name="kernel"), keras.Variable(theirs[1] / 8, name="bias")
    optimizer = recipe.optimizer.build(recipe.schedule.build(recipe.run))
    random = np.random.default_rng(0)
    for step in range(10):
        factor = 0.2 + 0.8 * step / rise
        gradients = random.normal(size=(2, 2))
        for i, (own_rate, decay) in enumerate(groups):
            d = 1024 * gradients[i] + decay * theirs[i]
            velocities[i] = momentum * velocities[i] + d
            theirs[i] = theirs[i] - own_rate * factor * (d + momentum * velocities[i])
        optimizer.apply([keras.ops.array(gradients[0]), keras.ops.array(8 * gradients[1])], [kernel, bias])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), theirs[0], rtol=1e-5)
    np.testing.assert_allclose(8 * keras.ops.convert_to_numpy(bias), theirs[1], rtol=1e-5)


@pytest.mark.parametrize("make", [lambda **k: baselines.resnet(8, **k), baselines.all_cnn_c, baselines.airbench])
def test_16_bits(make):
    assert make(dtype="float16").output.dtype == "float32"
    model = make(dtype="mixed_float16")
    model.compile("sgd", "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_airbench_needs_the_size_of_the_images():
    with pytest.raises(BadInput, match="26x26"):
        baselines.airbench(input_shape=(None, None, 3))


def test_airbench_needs_images_to_whiten():
    with pytest.raises(BadInput, match="Whitening needs images"):
        baselines.airbench(images=np.zeros((0, 32, 32, 3), "uint8"))
