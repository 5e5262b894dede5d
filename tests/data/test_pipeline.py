import itertools

import keras
import numpy as np
import pytest

from allconv_resnet.data import draws, pipeline
from allconv_resnet.data.augment import Batch, CropAndFlip, Cutout
from allconv_resnet.recipes import DIGITS

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(50)
RECIPE = DIGITS.replace(batch_size=12, padding=2, flip=True)


def take(n, **arguments):
    batches = pipeline.training_batches(IMAGES, LABELS, arguments.pop("recipe", RECIPE), **arguments)
    return [(x.numpy(), y.numpy()) for x, y in itertools.islice(batches, n)]


def same(first, second):
    return all(
        np.array_equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_a_batch_is_a_function_of_seed_and_step():
    run = take(9)
    assert same(run, take(9))
    assert same(run[5:], take(4, first_step=5))
    assert not same(run, take(9, recipe=RECIPE.replace(seed=1)))


def test_every_epoch_shows_every_example_once_in_an_order_of_its_own():
    labels = np.concatenate([y for _, y in take(25)])[:300].reshape(6, 50)
    assert all(sorted(epoch) == list(LABELS) for epoch in labels)
    assert len({tuple(epoch) for epoch in labels}) == 6


def test_workers_share_the_global_batch():
    recipe = RECIPE.replace(cutout=3)
    whole = take(6, recipe=recipe)
    parts = [take(6, recipe=recipe, worker=worker, workers=3) for worker in range(3)]
    for step, (x, y) in enumerate(whole):
        # Sums over a batch of another size may round differently.
        np.testing.assert_allclose(x, np.concatenate([part[step][0] for part in parts]), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(y, np.concatenate([part[step][1] for part in parts]))


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, RECIPE.replace(flip=False, cutout=3), RECIPE.replace(alternate=True)],
    ids=["crop", "cutout", "alternate"],
)
def test_draws_without_tensorflow_are_the_same(recipe):
    for step in (0, 7, 123_456_789):
        for augmentation in recipe.data.augmentations():
            numpy, tensorflow = (
                augmentation.draw(random, Batch(3, step, 12, (8, 8, 3), np.arange(12), np.arange(12) // 5))
                for random in (draws, pipeline.TensorFlowDraws)
            )
            assert len(numpy) == len(tensorflow)
            for one, other in zip(numpy, tensorflow, strict=True):
                np.testing.assert_array_equal(one, other)


def test_draws_are_uniform_and_differ_between_images_and_steps():
    offsets, flips = zip(
        *(CropAndFlip(4).draw(draws, Batch(3, step, 128, (32, 32, 3))) for step in range(100)), strict=True
    )
    offsets, flips = np.stack(offsets), np.stack(flips)
    counts = np.bincount(offsets.ravel(), minlength=9)
    assert len(counts) == 9 and abs(counts / counts.sum() - 1 / 9).max() < 0.01
    assert abs(flips.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(offsets[..., 0].ravel(), offsets[..., 1].ravel())[0, 1]) < 0.04
    assert abs(np.corrcoef(offsets[..., 0].ravel(), flips.ravel())[0, 1]) < 0.04
    assert len({tuple(step.ravel()) for step in offsets}) == 100


def test_order_and_augmentation_do_not_repeat_with_neighbouring_seeds():
    orders = {
        tuple(pipeline.example_indices(seed, step, 10, 1_000)[0].numpy()) for seed in range(5) for step in range(5)
    }
    assert len(orders) == 25
    offsets = {tuple(CropAndFlip(4).draw(draws, Batch(seed, 0, 10, (32, 32, 3)))[0].ravel()) for seed in range(5)}
    assert len(offsets) == 5


def test_alternate_mirrors_each_image_in_every_other_epoch():
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], (50, 8, 8, 3)) * 10
    recipe = RECIPE.replace(alternate=True, padding=0, batch_size=10)
    mirrored = np.zeros((4, 50), bool)
    for step, (x, y) in enumerate(itertools.islice(pipeline.training_batches(ramp, LABELS, recipe), 20)):
        mirrored[step // 5, y.numpy()] = np.diff(x.numpy(), axis=2).mean((1, 2, 3)) < 0
    assert (
        (mirrored[0] != mirrored[1]).all() and (mirrored[0] == mirrored[2]).all() and (mirrored[1] == mirrored[3]).all()
    )
    assert 10 < mirrored[0].sum() < 40


def test_flip_false_never_mirrors():
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], (50, 8, 8, 3)) * 10  # columns of one value rise
    rises = {}
    for flip in (False, True):
        batches = pipeline.training_batches(ramp, LABELS, RECIPE.replace(flip=flip, padding=0))
        x, _ = next(iter(batches))
        rises[flip] = np.diff(x.numpy(), axis=2).mean((1, 2, 3)) > 0
    assert rises[False].all()
    assert 0 < rises[True].mean() < 1


def test_cutout_is_the_mean_and_leaves_the_rest_of_the_batch_as_it_was():
    plain, cut = ([x for x, _ in take(20, recipe=recipe)] for recipe in (RECIPE, RECIPE.replace(cutout=3)))
    plain, cut = np.concatenate(plain), np.concatenate(cut)
    changed = cut != plain
    assert (cut[changed] == 0).all()
    areas = changed.any(-1).sum((1, 2))
    assert areas.max() == 9 and areas.min() < 9 and changed.any(0).all()


def test_cutout_draws_are_uniform_and_differ_between_steps_and_seeds():
    centres = np.stack([Cutout(3).draw(draws, Batch(3, step, 128, (32, 16, 3)))[0] for step in range(200)])
    for axis, length in enumerate((32, 16)):
        counts = np.bincount(centres[..., axis].ravel(), minlength=length)
        assert len(counts) == length and abs(counts * length / counts.sum() - 1).max() < 0.15
    assert abs(np.corrcoef(centres.reshape(-1, 2).T)[0, 1]) < 0.03
    seeds = [np.asarray(Cutout(3).draw(draws, Batch(seed, 0, 128, (32, 16, 3)))[0]) for seed in (0, 1, 2, 4, 5)]
    assert len({tuple(each.ravel()) for each in (*centres, *seeds)}) == 205
    offsets = [CropAndFlip(15).draw(draws, Batch(seed, 0, 128, (32, 32, 3)))[0] for seed in range(6)]
    assert all(abs(np.corrcoef(d[:, 0], o[:, 0])[0, 1]) < 0.4 for d in seeds for o in offsets)


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluation_shows_every_image_once_in_order(workers):
    seen = []
    for worker in range(workers):
        for x, y, weights in pipeline.evaluation_batches(IMAGES, LABELS, 12, worker, workers, padded=True):
            assert x.shape == (12 // workers, 8, 8, 3)
            seen += list(y.numpy()[weights.numpy() == 1])
    assert sorted(seen) == list(LABELS)
    if workers == 1:
        assert seen == list(LABELS)


@pytest.mark.parametrize("examples", [13, 24])
def test_validation_data_of_fit_count_every_image_once(examples):
    """Keras divides the loss of a batch by the number of its images, also of those of weight 0."""
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    images, labels = IMAGES[:examples], LABELS[:examples] % 10
    batches = pipeline.evaluation_batches(images, labels, 12)
    x = np.concatenate([x for x, _, _ in batches])
    logits = model.predict(x, verbose=0)
    expected = [float(loss(labels, logits)), float(np.mean(logits.argmax(1) == labels))]
    assert model.evaluate(batches, verbose=0) == pytest.approx(expected, rel=1e-5)
    history = model.fit(x, labels, epochs=1, batch_size=6, validation_data=batches, verbose=0).history
    logits = model.predict(x, verbose=0)
    assert history["val_loss"] == [pytest.approx(float(loss(labels, logits)), rel=1e-5)]


@pytest.mark.parametrize("padded", [False, True])
def test_iterators_are_not_tuned(padded):
    """The deletion of a tuned iterator often sleeps, up to a minute, and every evaluation deletes one."""
    evaluation = pipeline.evaluation_batches(IMAGES, LABELS, 12, padded=padded)
    for dataset in (pipeline.training_batches(IMAGES, LABELS, RECIPE), evaluation):
        assert dataset.options().autotune.enabled is False
