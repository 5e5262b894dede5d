import keras
import numpy as np
import pytest
from keras import ops

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.initializers import patch_whitening

RNG = np.random.default_rng(0)
SMALL = {"input_shape": (8, 8, 3), "num_classes": 4, "stem": (4, 3, 1, 1), "stages": ((2, 8, 1), (1, 16, 2))}


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def images(n, size=8):
    return RNG.standard_normal((n, size, size, 3)).astype("float32")


@pytest.fixture(scope="module")
def cifar():
    return acr.cifar_resnet(10)


def test_table_1_has_55_convolutions_and_13_538_736_trainable_parameters(cifar):
    convolutions = [layer for layer in cifar._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 55
    assert all(conv.kernel_size == (3, 3) and not conv.use_bias for conv in convolutions)
    assert count(cifar.trainable_weights) == 13_538_736
    assert count(cifar.non_trainable_weights) == 2_560


def test_table_1_has_three_stages_of_nine_blocks(cifar):
    blocks = [layer for layer in cifar.layers if isinstance(layer, acr.ResidualBlock)]
    shapes = [tuple(block.output.shape[1:]) for block in blocks]
    assert shapes == 9 * [(32, 32, 64)] + 9 * [(16, 16, 128)] + 9 * [(8, 8, 256)]
    kinds = {type(layer).__name__ for layer in cifar.layers}
    assert kinds == {"InputLayer", "Conv2D", "ResidualBlock", "GlobalAveragePooling2D", "RandomProjection"}


def test_initial_deviations_are_the_papers(cifar):
    expected = {"stem": 1 / (3 * 16**0.5), "projection": 1 / 256**0.5}
    for name, deviation in expected.items():
        kernel = ops.convert_to_numpy(cifar.get_layer(name).kernel)
        assert abs(kernel.mean()) < 4 * deviation / kernel.size**0.5
        assert kernel.std() == pytest.approx(deviation, rel=4 / (2 * kernel.size) ** 0.5)
    for stage, c in ((1, 64), (2, 128), (3, 256)):
        for block in (1, 9):
            layer = cifar.get_layer(f"stage{stage}_block{block}")
            for conv in (layer.conv1, layer.conv2):
                kernel = ops.convert_to_numpy(conv.kernel)
                assert kernel.std() == pytest.approx(1 / (9 * c), rel=4 / (2 * kernel.size) ** 0.5)


def test_no_two_kernels_are_alike(cifar):
    first = [float(ops.convert_to_numpy(w).ravel()[0]) for w in cifar.weights if len(w.shape) == 4]
    assert len(set(first)) == len(first) == 55


def test_cifar_100_projects_to_100_classes():
    model = acr.cifar_resnet(100)
    assert model.output_shape == (None, 100)
    assert count(model.trainable_weights) == 13_538_736
    assert count(model.non_trainable_weights) == 25_600


@pytest.mark.parametrize(
    ("widths", "parameters"),
    [((), 35_673_120), ((83, 166, 333, 666), 35_675_772), ((64, 128, 256, 512), 21_095_616)],
)
def test_imagenet_networks_have_34_layers_and_their_parameters(widths, parameters):
    model = acr.imagenet_resnet(1000, *[widths] if widths else [])
    convolutions = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) + 1 == 34  # and the projection
    assert count(model.trainable_weights) == parameters
    last_width = (widths or (656,))[-1]
    assert count(model.non_trainable_weights) == last_width * 1000
    assert model.get_layer("stem_pool").output.shape == (None, 56, 56, (widths or (96,))[0])
    assert model.layers[-3].output.shape == (None, 7, 7, last_width)


def test_projection_is_never_trained_and_survives_saving(tmp_path):
    model = acr.AllConvResNet(**SMALL, seed=5)
    before = ops.convert_to_numpy(model.get_layer("projection").kernel).copy()
    stem = ops.convert_to_numpy(model.get_layer("stem").kernel).copy()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(acr.Momentum(0.05, weight_decay=1e-2), loss)
    model.fit(images(32), np.arange(32) % 4, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for other in (model, loaded, acr.AllConvResNet(**SMALL, seed=5)):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(other.get_layer("projection").kernel))
    assert not np.array_equal(stem, ops.convert_to_numpy(model.get_layer("stem").kernel))
    other_seed = acr.AllConvResNet(**SMALL, seed=6).get_layer("projection").kernel
    assert not np.array_equal(before, ops.convert_to_numpy(other_seed))


def test_saved_file_continues_training_where_it_was(tmp_path):
    x, y = images(32), np.arange(32) % 4
    model = acr.AllConvResNet(**SMALL, seed=1)
    schedule = acr.StepDecay(0.1, [3], 0.1)
    model.compile(acr.Momentum(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, acr.AllConvResNet)
    for each in (model, loaded):
        each.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-5, atol=1e-6)


ABLATIONS = [
    {},
    {"initialization": "standard"},
    {"initialization": "he"},
    {"initialization": keras.initializers.GlorotUniform()},
    {"trainable_head": True},
    {"normalization": "batch"},
    {"shortcut": None},
    {"kernel_sizes": (3, 1)},
    {"use_bias": True},
    {"activation": "tanh"},
    {"activation": keras.activations.gelu},
    {"activation": keras.layers.LeakyReLU(0.3)},
    {"activation": keras.layers.PReLU("ones")},
    {"final_activation": "relu"},
    {"dtype": "mixed_bfloat16"},
    {"stem": (6, 7, 2, 2), "stages": ((1, 8, 1),)},
]


@pytest.mark.parametrize("arguments", ABLATIONS, ids=lambda a: "-".join(a) or "paper")
def test_every_argument_survives_config_and_file(arguments, tmp_path):
    model = acr.AllConvResNet(**{**SMALL, **arguments}, seed=2)
    x = images(4)
    y = ops.convert_to_numpy(model(x))
    assert y.shape == (4, 4) and y.dtype == "float32" and np.isfinite(y).all()
    again = acr.AllConvResNet.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(y, ops.convert_to_numpy(again(x)))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(y, ops.convert_to_numpy(keras.saving.load_model(tmp_path / "model.keras")(x)))


def test_ablations_change_what_they_name():
    paper = acr.AllConvResNet(**SMALL)
    trained = acr.AllConvResNet(**SMALL, trainable_head=True)
    assert count(trained.trainable_weights) == count(paper.trainable_weights) + 16 * 4
    assert len(acr.AllConvResNet(**SMALL, normalization="batch").non_trainable_weights) == 2 * 7 + 1
    biased = acr.AllConvResNet(**SMALL, use_bias=True)
    assert count(biased.trainable_weights) == count(paper.trainable_weights) + 4 + 4 * 8 + 2 * 16
    pointwise = acr.AllConvResNet(**SMALL, kernel_sizes=(3, 1))
    kernels = [layer.conv2.kernel for layer in paper.layers if isinstance(layer, acr.ResidualBlock)]
    assert count(pointwise.trainable_weights) == count(paper.trainable_weights) - count(kernels) * 8 // 9
    kernel = acr.AllConvResNet(**SMALL, initialization="standard").get_layer("stage1_block2").conv1.kernel
    assert ops.convert_to_numpy(kernel).std() == pytest.approx(1 / (3 * 8**0.5), rel=0.15)


def test_summary_and_one_step_of_fit_on_the_full_network(cifar, capsys):
    cifar.summary()
    assert "13,541,296" in capsys.readouterr().out  # 13,538,736 + 2,560
    cifar.compile(acr.Momentum(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = cifar.fit(images(2, 32), np.array([1, 2]), verbose=0).history
    assert np.isfinite(history["loss"][0])


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"stages": ((1, 8, 1), (1, 4, 1))}, "filters=4"),
        ({"stages": ((1, 8, 3),)}, r"input_shape=\(None, 8, 8, 4\)"),
        ({"normalization": "layer"}, "normalization='layer'"),
        ({"shortcut": "dense"}, "shortcut='dense'"),
        ({"initialisation": "he"}, "stage.*initialization.*shortcut.*Received: initialisation='he'"),
        ({"weights": "imagenet", "include_top": False}, "Received: (weights='imagenet'|include_top=False)"),
        ({"filters": 3}, "Received: filters=3"),
    ],
)
def test_impossible_networks_are_refused(arguments, received):
    with pytest.raises(BadInput, match=received):
        acr.AllConvResNet(**{**SMALL, **arguments})


def test_a_whitened_stem_makes_patches_white_and_is_not_trained():
    noise = RNG.standard_normal((300, 16, 16, 3))
    smooth = np.cumsum(noise, axis=2) + 3 * noise[..., :1]  # neighbours and channels are alike, as in photographs
    pictures = np.clip(128 + 20 * smooth, 0, 255).astype("uint8")
    arguments = {**SMALL, "input_shape": (16, 16, 3), "stem": (20, 3, 1, 1), "stages": ((1, 24, 2),)}
    model = acr.AllConvResNet(**arguments, trainable_stem=False)
    acr.whiten_stem(model, pictures)
    stem = model.get_layer("stem")
    assert [weight.path for weight in model.trainable_weights if weight.path.startswith("stem")] == []
    standardized = ops.convert_to_numpy(acr.standardize(pictures))
    outputs = ops.convert_to_numpy(stem(standardized))[:, 1:-1, 1:-1].reshape(-1, 20)  # the rim has zeros around
    moments = outputs.T @ outputs / len(outputs)
    shifts = [standardized[:, i : i + 14, j : j + 14] for i in range(3) for j in range(3)]
    patches = np.concatenate(shifts, axis=-1).reshape(-1, 27)
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1][:20]
    np.testing.assert_allclose(moments, np.diag(values / (values + 0.1)), atol=1e-3)
    assert moments[0, 0] > 0.9
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert not again.get_layer("stem").trainable
    with pytest.raises(ValueError, match=r"at most the number of values in a patch, 27\. Received: filters=28"):
        patch_whitening(standardized, 3, 28)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 2e-3)])
def test_mirror_average_is_the_mean_over_mirror_images_in_inference_alone(dtype, tolerance, tmp_path):
    plain, averaged = (acr.AllConvResNet(**SMALL, mirror_average=on, dtype=dtype) for on in (False, True))
    averaged.set_weights(plain.get_weights())
    x = RNG.standard_normal((5, *SMALL["input_shape"])).astype("float32")
    images = (x, x[:, :, ::-1])
    logits = np.stack([ops.convert_to_numpy(plain(each)) for each in images])
    assert abs(logits[0] - logits[1]).max() > 10 * tolerance
    for each in images:
        found = ops.convert_to_numpy(averaged(each, training=False))
        assert found.dtype == np.float32 and found.shape == (5, 4)
        np.testing.assert_allclose(found, logits.mean(0), atol=tolerance)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(model(x, training=True)) for model in (plain, averaged)))
    averaged.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, batch_size=2, verbose=0), logits.mean(0), atol=tolerance)


@pytest.mark.parametrize("mirror_average", [False, True])
def test_features_are_averaged_in_float32(mirror_average):
    model = acr.AllConvResNet(
        (8, 8, 3), 4, stages=[acr.Stage(1, 16, 1)], mirror_average=mirror_average, dtype="mixed_bfloat16"
    )
    pool = model.get_layer("pool")
    features = np.asarray(keras.ops.cast(pool(np.random.default_rng(0).random((2, 8, 8, 16), "float32")), "float32"))
    rounded = np.asarray(keras.ops.cast(keras.ops.cast(features, "bfloat16"), "float32"))
    assert pool.compute_dtype == "float32" and np.mean(features != rounded) > 0.9


TINY = {"input_shape": (8, 8, 3), "stem": (4, 3), "stages": [(2, 8, 2)]}


def test_mixed_float16_scales_the_loss_and_keeps_doing_so(tmp_path):
    """Without it, most gradients of the paper's initial weights are smaller than the smallest float16."""
    model = acr.AllConvResNet(**TINY, dtype="mixed_float16")
    model.compile(acr.Momentum(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.fit(np.ones((4, 8, 8, 3)), np.zeros(4), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.LossScaleOptimizer)
    assert int(loaded.optimizer.iterations) == 1
    assert model(np.ones((1, 8, 8, 3), "float32")).dtype == "float32"
    plain = acr.AllConvResNet(**TINY, dtype="mixed_bfloat16")
    plain.compile("sgd", "mse")
    assert not isinstance(plain.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("mirror_average", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_bfloat16"])
def test_logits_are_at_least_float32(dtype, mirror_average):
    model = acr.AllConvResNet(**TINY, dtype=dtype, mirror_average=mirror_average)
    assert model.output.dtype == "float32"
    assert keras.backend.standardize_dtype(model(np.ones((1, 8, 8, 3), "float32")).dtype) == "float32"


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("other", [{"normalization": "batch"}, {"stages": [(3, 8, 2)]}, {"block": "scaled"}], ids=str)
def test_weights_of_other_networks_are_refused(tmp_path, suffix, other):
    model, path = acr.AllConvResNet(**{**TINY, **other}), tmp_path / f"model{suffix}"
    model.compile("sgd", "mse")
    model.fit(np.ones((1, 8, 8, 3)), np.zeros((1, 10)), verbose=0)  # the file has the weights of the optimizer too
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    again = acr.AllConvResNet(**{**TINY, **other}, weights=path)
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(BadInput, match=r"cannot be loaded into the network: the file has \d+ variables, and"):
        acr.AllConvResNet(**TINY, weights=path)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_weights_of_a_network_with_a_random_activation(tmp_path, suffix):
    """Its layer has the state of a generator of random numbers, which is a variable but not a weight."""
    arguments = {**TINY, "final_activation": keras.layers.Dropout(0.5)}
    model, path = acr.AllConvResNet(**arguments), tmp_path / f"model{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    acr.AllConvResNet(**arguments, weights=path)


@pytest.mark.parametrize("name", ["bad.keras", "bad.weights.h5"])
def test_a_damaged_file_of_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_text("no weights")
    with pytest.raises(BadInput, match=f"The weights in .*{name} cannot be loaded into the network: .*[a-z]"):
        acr.AllConvResNet(**TINY, weights=tmp_path / name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"stages": [(0, 8, 2), (1, 8)]},
        {"stages": [(1, 8, 2, 3)]},
        {"stages": 3},
        {"stem": 16},
        {"stem": (4, 3, 1, 0)},
        {"num_classes": 0},
        {"num_classes": 2.5},
        {"seed": None},
        {"initialization": None},
        {"initialization": keras.initializers.HeNormal},
        {"input_shape": (8, 8, None)},
    ],
    ids=str,
)
def test_tables_that_make_no_network_are_refused(arguments):
    with pytest.raises(BadInput, match="Received: "):
        acr.AllConvResNet(**{**TINY, **arguments})


@pytest.mark.parametrize("initialization", [keras.initializers.HeNormal(), "HeNormal"])
def test_initializers_of_keras(initialization):
    model = acr.AllConvResNet(**TINY, initialization=initialization)
    kernels = [w for w in model.weights if w.path.endswith("conv2/kernel")]
    assert len(kernels) == 2 and np.std(kernels[0]) == pytest.approx((2 / 72) ** 0.5, rel=0.2)
    assert not np.array_equal(*kernels)


def test_an_initializer_may_be_a_function():
    def ones(shape, dtype=None):
        return ops.ones(shape, dtype)

    block = acr.ResidualBlock(3, initialization=ones)
    block.build((None, 4, 4, 3))
    assert (ops.convert_to_numpy(block.conv1.kernel) == 1).all()


def test_images_that_cannot_whiten_are_refused():
    model = acr.AllConvResNet(**TINY)
    for shape in ((0, 8, 8, 3), (5, 2, 2, 3), (5, 8, 8, 1)):
        with pytest.raises(BadInput, match=r"Whitening needs images|images must have 3 channels"):
            acr.whiten_stem(model, np.zeros(shape, "uint8"))


def test_the_widths_of_imagenet_are_four():
    with pytest.raises(BadInput, match="widths must be 4 integers"):
        acr.imagenet_resnet(10, widths=(8, 8, 8))
