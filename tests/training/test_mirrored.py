"""Two devices that share each batch train as one device does."""

import json

import numpy as np
import pytest

from allconv_resnet.data.source import load_data
from allconv_resnet.training.weights import load_model


def losses(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["split"], line["loss"]) for line in lines]


def test_two_devices_equal_one(start, tiny, tmp_path):
    recipe = tiny.replace(clip_norm=1.0, steps=30)
    assert start(recipe, tmp_path / "one").wait() == 0
    two = start(recipe, tmp_path / "two", "--strategy", "mirrored", "--replicas", "2")
    assert two.wait() == 0
    assert "2 device(s)" in two.output()
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())["sessions"][0]
    assert (environment["strategy"], environment["replicas"]) == ("MirroredStrategy", 2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [line[:2] for line in one] == [line[:2] for line in two]
    assert len(one) == 30 + 2  # 30 steps, and evaluations at 20 and 30
    np.testing.assert_allclose([line[2] for line in two], [line[2] for line in one], rtol=1e-5)
    assert one[-1][2] < 0.96 * one[0][2]  # they learn


@pytest.mark.slow
def test_batch_normalization_is_over_the_images_of_both_devices(start, tiny, tmp_path):
    recipe = tiny.replace(normalization="batch", steps=6, evaluate_every=3, checkpoint_every=3)
    assert start(recipe, tmp_path / "one").wait() == 0
    two = ("--strategy", "mirrored", "--replicas", "2")
    assert start(recipe, tmp_path / "two", *two).wait() == 0
    one, both = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [line[:2] for line in one] == [line[:2] for line in both]
    np.testing.assert_allclose([line[2] for line in both], [line[2] for line in one], rtol=1e-3)
    assert start(recipe.replace(steps=3), tmp_path / "resumed", *two).wait() == 0
    assert start(recipe, tmp_path / "resumed", *two).wait() == 0
    resumed = losses(tmp_path / "resumed")
    np.testing.assert_allclose([line[2] for line in resumed], [line[2] for line in both], rtol=1e-6)


def test_muon_and_a_whitened_stem_on_two_devices_equal_one_and_go_on(start, tiny, tmp_path):
    recipe = tiny.replace(optimizer="muon", learning_rate=0.02, steps=6, evaluate_every=3, checkpoint_every=3)
    whitened, two = ("--whitened-stem",), ("--strategy", "mirrored", "--replicas", "2")
    assert start(recipe, tmp_path / "one", *whitened).wait() == 0
    assert start(recipe.replace(steps=3), tmp_path / "two", *whitened, *two).wait() == 0
    assert start(recipe, tmp_path / "two", *whitened, *two).wait() == 0
    one, both = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [line[:2] for line in one] == [line[:2] for line in both]
    np.testing.assert_allclose([line[2] for line in both], [line[2] for line in one], rtol=1e-3)
    tests = [loss for _, split, loss in one if split == "test"]
    assert tests[-1] < tests[0]
    for run in ("one", "two"):  # in training and in what came of it, the stem is as the images had it
        model, recipe, _ = load_model(tmp_path / run)
        fresh = recipe.build_model(load_data("digits").arrays("train")[0])
        assert recipe.network.whitened_stem and not model.get_layer("stem").trainable
        np.testing.assert_array_equal(model.get_layer("stem").kernel, fresh.get_layer("stem").kernel)


DROPOUT = """
import tensorflow as tf, keras
from allconv_resnet.training.engines import distribution
from allconv_resnet.training.checkpoints import Checkpoints
strategy = distribution.create_strategy("mirrored", 2, 4)
with strategy.scope():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dropout(0.5, seed=1)(images))
def draw():
    outputs = strategy.run(tf.function(lambda: model(tf.ones((1, 8, 8, 3)), training=True)))
    return [output.numpy() for output in strategy.experimental_local_results(outputs)]
distribution.draw_apart(strategy, model)
checkpoints = Checkpoints("FOLDER")
checkpoints.save(1, lambda: {str(i): v.numpy() for i, v in enumerate(model.variables)})
first, second = draw()
assert (first != second).any()
checkpoints.restore(lambda state: [v.assign(state[str(i)]) for i, v in enumerate(model.variables)])
distribution.draw_apart(strategy, model)
again = draw()
assert (again[0] == first).all() and (again[1] == second).all()
print("apart")
"""


def test_each_device_draws_its_own_dropout_and_draws_it_again_after_a_resume(run_python, tmp_path):
    done = run_python("-c", DROPOUT.replace("FOLDER", str(tmp_path / "checkpoints")))
    assert done.returncode == 0, done.stderr
    assert "apart" in done.stdout


USER_CODE = """
import numpy as np, tensorflow as tf, keras, allconv_resnet as acr
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
x = np.random.default_rng(0).standard_normal((64, 8, 8, 3)).astype("float32")
y = np.arange(64) % 4
histories = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])):
    with strategy.scope():
        model = acr.AllConvResNet((8, 8, 3), 4, stem=(4, 3, 1, 1), stages=[(1, 8, 1), (1, 16, 2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(acr.Momentum(acr.StepDecay(0.1, [6], 0.1), weight_decay=1e-4), loss, metrics=["accuracy"])
    history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history
    assert strategy.num_replicas_in_sync == len(histories) + 1
    histories.append(history["loss"])
np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)
with strategy.scope():
    weight, optimizer = keras.Variable([0.0, 0.0]), acr.Momentum(1.0, momentum=0.0, global_clipnorm=1.0)
    optimizer.build([weight])
strategy.run(tf.function(lambda: optimizer.apply([tf.constant([3.0, 4.0])], [weight])))
np.testing.assert_allclose(weight.numpy(), [-1.2, -1.6], rtol=1e-6)  # the norm of each of two gradients is clipped
print("equal", histories[0])
"""


@pytest.mark.slow
def test_a_users_compile_and_fit_under_mirrored_strategy_equals_one_device(run_python):
    done = run_python("-c", USER_CODE)
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout
