"""What a user sets on a model is kept by save, load and clone, and old files are read."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import allconv_resnet as acr
from allconv_resnet.errors import BadInput

RNG = np.random.default_rng(0)
SMALL = {"input_shape": (8, 8, 3), "num_classes": 4, "stem": (4, 3, 1, 1), "stages": ((2, 8, 1), (1, 16, 2))}
X, Y = RNG.standard_normal((8, 8, 8, 3)).astype("float32"), np.arange(8) % 4


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def saved(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


def cloned(model, tmp_path):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


COPIES = pytest.mark.parametrize("copy", [saved, cloned])


def trainable(model):
    return [weight.path.split("/", 1)[-1] if "/" in weight.path else weight.path for weight in model.trainable_weights]


def with_old_configuration(path, target, configuration):
    """Copies a `.keras` file, with the configuration that an older version wrote for the same network."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                whole = json.loads(content)
                whole["config"] = configuration
                content = json.dumps(whole)
            new.writestr(name, content)


OLD = {  # as version f83c8cf wrote it
    "input_shape": [8, 8, 3],
    "num_classes": 4,
    "stem": [4, 3, 1, 1],
    "stages": [[2, 8, 1], [1, 16, 2]],
    "activation": "relu",
    "final_activation": None,
    "use_bias": False,
    "trainable_head": False,
    "trainable_stem": True,
    "initialization": {
        "module": "keras.initializers",
        "class_name": "GlorotUniform",
        "config": {"seed": None},
        "registered_name": None,
    },
    "normalization": None,
    "shortcut": None,
    "kernel_sizes": [3, 1],
    "mirror_average": True,
    "seed": 3,
    "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None},
    "name": "old",
}


def test_a_file_of_an_older_version_is_read(tmp_path):
    model = acr.AllConvResNet(**SMALL, activation="relu", shortcut=None, kernel_sizes=(3, 1), mirror_average=True)
    model.compile(acr.Momentum(0.05), loss())
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(tmp_path / "new.keras")
    with_old_configuration(tmp_path / "new.keras", tmp_path / "old.keras", OLD)
    loaded = keras.saving.load_model(tmp_path / "old.keras")
    assert loaded.name == "old"
    np.testing.assert_array_equal(*(each.predict(X, verbose=0) for each in (model, loaded)))
    assert int(loaded.optimizer.iterations) == 2


@COPIES
def test_frozen_layers_stay_frozen(copy, tmp_path):
    model = acr.AllConvResNet(**SMALL)
    model.get_layer("stem").trainable = False
    model.get_layer("stage1_block1").conv1.trainable = False
    model.get_layer("stage2_block1").trainable = False
    assert trainable(copy(model, tmp_path)) == trainable(model)
    assert len(model.trainable_weights) == 3
    model.trainable = False
    assert copy(model, tmp_path).trainable_weights == []


@COPIES
def test_a_frozen_network_in_another_model_stays_frozen(copy, tmp_path):
    network = acr.AllConvResNet(**SMALL)
    network.trainable = False
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(2, name="head")(network(images, training=False)))
    again = copy(model, tmp_path)
    assert len(again.trainable_weights) == 2
    np.testing.assert_array_equal(*(each.predict(X, verbose=0) for each in (model, again)))


@COPIES
@pytest.mark.parametrize("start", [False, True])
def test_the_projection_is_trained_if_the_user_says_so(copy, start, tmp_path):
    model = acr.AllConvResNet(**SMALL, trainable_head=start)
    model.get_layer("projection").trainable = not start
    again = copy(model, tmp_path)
    before = ops.convert_to_numpy(again.get_layer("projection").kernel).copy()
    again.compile(acr.Momentum(0.05), loss())
    again.fit(X, Y, verbose=0)
    after = ops.convert_to_numpy(again.get_layer("projection").kernel)
    assert np.array_equal(before, after) == start


@COPIES
def test_a_mirror_average_survives(copy, tmp_path):
    model = acr.AllConvResNet(**SMALL, mirror_average=True)
    np.testing.assert_array_equal(*(each.predict(X, verbose=0) for each in (model, copy(model, tmp_path))))


def test_features_under_a_mirror_average_can_be_extracted_saved_and_trained_on(tmp_path):
    model = acr.AllConvResNet(**SMALL, mirror_average=True)
    plain = acr.AllConvResNet(**SMALL)
    extractor, single = (keras.Model(each.input, each.get_layer("pool").output) for each in (model, plain))
    features = saved(extractor, tmp_path).predict(X, verbose=0)
    mean = (single.predict(X, verbose=0) + single.predict(X[:, :, ::-1], verbose=0)) / 2
    np.testing.assert_allclose(features, mean, rtol=1e-5, atol=1e-6)
    tuned = keras.Model(model.input, keras.layers.Dense(4, name="head")(model.get_layer("pool").output))
    tuned.compile(acr.Momentum(0.05), loss(), metrics=["accuracy"])
    tuned.fit(X, Y, batch_size=3, verbose=0)
    assert np.isfinite(tuned.evaluate(X, Y, batch_size=3, verbose=0)).all()


@pytest.mark.parametrize(("kind", "by_name"), [(acr.Momentum, True), (acr.Momentum, False), (acr.Muon, False)])
def test_a_loaded_optimizer_excludes_the_same_variables(kind, by_name, tmp_path):
    model = acr.AllConvResNet(**SMALL, use_bias=True, seed=1)
    optimizer = kind(0.05, weight_decay=0.5)
    excluded = [weight for weight in model.trainable_weights if weight.path.endswith("bias")]
    optimizer.exclude_from_weight_decay(**({"var_names": ["bias"]} if by_name else {"var_list": excluded}))
    model.compile(optimizer, loss())
    model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    models = model, saved(model, tmp_path)
    for each in models:
        each.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    assert models[1].optimizer.get_config() == optimizer.get_config()
    for a, b in zip(*(each.get_weights() for each in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    decays = [optimizer.weight_decay_of(weight) for weight in model.trainable_weights]
    assert decays == [0.0 if weight.path.endswith("bias") else 0.5 for weight in model.trainable_weights]


@pytest.mark.parametrize("kind", [acr.Momentum, acr.Muon, keras.optimizers.Adam])
@pytest.mark.filterwarnings("error::UserWarning")  # Keras warns if it drops the state of an optimizer
def test_the_state_of_an_optimizer_survives_beside_frozen_layers(kind, tmp_path):
    model = acr.AllConvResNet(**SMALL)
    model.layers[1].trainable = False
    model.get_layer("stage1_block1").conv1.trainable = False
    model.compile(kind(0.01), loss())
    model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    models = model, saved(model, tmp_path)
    for each in models:
        each.fit(X, Y, shuffle=False, verbose=0)
    for a, b in zip(*(each.optimizer.variables for each in models), strict=True):
        np.testing.assert_allclose(*(ops.convert_to_numpy(each) for each in (a, b)), rtol=1e-5, atol=1e-6)


def test_what_is_frozen_in_a_frozen_model_survives(tmp_path):
    model = acr.AllConvResNet(**SMALL, normalization="batch", trainable_stem=False)
    model.trainable = False
    model.get_layer("stage2_block1").trainable = True
    model.get_layer("stage2_block1").norm1.trainable = False
    assert trainable(saved(model, tmp_path)) == trainable(model)
    model.trainable = True
    model.get_layer("stem").trainable = False
    assert trainable(saved(model, tmp_path)) == trainable(model)


def test_a_file_that_could_not_be_loaded_is_not_written(tmp_path):
    model = acr.AllConvResNet(**SMALL)
    with pytest.raises(BadInput, match=r"saved as a .keras file, and not as HDF5. Received: filepath='[^']*x.hdf5'"):
        model.save(tmp_path / "x.hdf5")
    assert not [*tmp_path.iterdir()]
