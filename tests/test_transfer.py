"""What one network takes over from another, and which layers are frozen, goes by name."""

import keras
import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet import baselines
from allconv_resnet.errors import BadInput
from allconv_resnet.transfer import arrays_by_name, freeze, take_weights, weights_by_name

SMALL = {"input_shape": (8, 8, 3), "stem": (4, 3, 1, 1), "stages": ((2, 8, 1), (1, 16, 2))}


def test_weights_of_the_same_name_and_shape_are_taken_and_the_rest_is_new():
    old = acr.AllConvResNet(num_classes=4, **SMALL, use_bias=True, seed=1)
    new = acr.AllConvResNet(num_classes=5, **{**SMALL, "stages": ((2, 8, 1), (2, 16, 2))}, seed=2)
    before = arrays_by_name(new)
    transfer = take_weights(new, arrays_by_name(old))
    assert transfer.new == {
        "stage2_block2/conv1/kernel": "there is none of this name",
        "stage2_block2/conv2/kernel": "there is none of this name",
        "projection/kernel": "its shape is (16, 4) there and (16, 5) here",
    }
    assert set(transfer.unused) == {name for name in arrays_by_name(old) if name.endswith("bias")} != set()
    assert len(transfer.taken) == 7 and set(transfer.taken) | set(transfer.new) == set(before)
    for name, value in arrays_by_name(new).items():
        expected = arrays_by_name(old)[name] if name in transfer.taken else before[name]
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_what_the_other_network_has_beyond_this_one_is_listed():
    old = acr.AllConvResNet(num_classes=4, **SMALL, block="scaled")
    new = acr.AllConvResNet(num_classes=4, **{**SMALL, "stages": ((2, 8, 1),)})
    transfer = take_weights(new, arrays_by_name(old))
    assert set(transfer.new) == {"projection/kernel"}
    assert set(transfer.unused) == {
        *(f"{block}/gain" for block in ("stage1_block1", "stage1_block2", "stage2_block1")),
        "stage2_block1/conv1/kernel",
        "stage2_block1/conv2/kernel",
    }


@pytest.mark.parametrize("make", [baselines.all_cnn_c, lambda **k: baselines.resnet(depth=8, **k)])
def test_layers_that_keras_numbers_through_the_program_have_names_of_their_own(make):
    first, second = (make(input_shape=(16, 16, 3), seed=seed) for seed in (0, 1))
    assert [weight.path for weight in first.weights] != [weight.path for weight in second.weights]
    assert list(weights_by_name(first)) == list(weights_by_name(second))
    assert len(weights_by_name(first)) == len(first.weights)
    assert take_weights(second, arrays_by_name(first)).new == {}
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["stem"], ["stage1_block1", "stage1_block2", "stage2_block1"]),
        (["stage1"], ["stem", "stem_norm", "stage2_block1"]),
        (["stem", "stage1_block2"], ["stage1_block1", "stage2_block1"]),
    ],
)
def test_frozen_layers_do_not_change_in_training(names, left):
    model = acr.AllConvResNet(num_classes=4, **SMALL, normalization="batch")
    freeze(model, names)
    trained = {weight.path.split("/")[0] for weight in model.trainable_weights}
    assert trained == set(left)
    before = arrays_by_name(model)
    model.compile(acr.Momentum(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.random.default_rng(0).standard_normal((8, 8, 8, 3)), np.arange(8) % 4, verbose=0)
    changed = {name.split("/")[0] for name, value in arrays_by_name(model).items() if (value != before[name]).any()}
    assert changed == set(left)


def test_weights_of_peers_have_the_names_that_older_runs_gave_them():
    names = list(weights_by_name(baselines.resnet(depth=8)))
    assert names[:2] == ["conv2d/kernel", "batch_normalization/gamma"] and "conv2d_6/kernel" in names
    assert "conv2d_5/kernel" in weights_by_name(baselines.airbench(widths=(8, 8, 8)))


def test_a_number_of_keras_is_not_a_part_of_a_name():
    model = baselines.all_cnn_c(input_shape=(16, 16, 3))
    freeze(model, ["conv2d", "conv2d_8"])
    assert len(model.trainable_weights) == 14


def test_what_training_changes_can_be_frozen():
    model = acr.AllConvResNet(num_classes=4, **SMALL, trainable_head=True)
    freeze(model, ["projection", "stage1", "stage1_block1"])  # the last one is frozen already
    assert not model.get_layer("projection").trainable_weights
    averages = keras.layers.BatchNormalization(scale=False, center=False, name="averages")
    model = keras.Sequential([keras.Input((4,)), averages, keras.layers.Dense(2)])
    freeze(model, ["averages"])  # it has no weights that are trained, but moving averages
    assert not averages.trainable


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["stage3"], "freeze must name layers that are trained, such as stem, stage1, stage2. Received: 'stage3'"),
        (["stage"], "freeze must name layers"),
        (["projection"], "freeze must name layers that are trained"),  # it is fixed
        (["stem", "pool"], "Received: 'pool'"),
        (["images"], "Received: 'images'"),
        (["stem", "stage1", "stage2"], "freeze must leave a layer that is trained"),
    ],
)
def test_what_cannot_be_frozen_is_refused(names, message):
    with pytest.raises(BadInput, match=message):
        freeze(acr.AllConvResNet(num_classes=4, **SMALL), names)
