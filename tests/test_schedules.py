import keras
import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet.errors import BadInput


def test_step_decay_of_the_paper_at_before_and_after_every_boundary():
    schedule = acr.StepDecay(0.05, [30_000, 50_000], 0.1)
    expected = {0: 0.05, 1: 0.05, 29_999: 0.05, 30_000: 0.005, 30_001: 0.005}
    expected |= {49_999: 0.005, 50_000: 0.0005, 50_001: 0.0005, 10_000_000: 0.0005}
    for step, rate in expected.items():
        assert np.float32(schedule(step)) == np.float32(rate)


def test_imagenet_decay_of_the_paper_at_before_and_after_every_boundary():
    schedule = acr.EpochExponentialDecay(0.1, 0.94, epochs_per_decay=2, steps_per_epoch=1_281_167 / 256)
    interval = int(2 * 1_281_167 / 256)
    assert interval == 10_009
    for decay in range(1, 70):  # 700,000 steps
        for step, decays in (
            (decay * interval - 1, decay - 1),
            (decay * interval, decay),
            (decay * interval + 1, decay),
        ):
            assert float(schedule(step)) == pytest.approx(0.1 * 0.94**decays, rel=1e-5)


def test_linear_decay_and_a_warm_up_before_it():
    schedule = acr.LinearDecay(0.4, 8)
    assert [float(schedule(step)) for step in (0, 1, 4, 8, 9)] == pytest.approx([0.4, 0.35, 0.2, 0, 0], rel=1e-6)
    warm = acr.WarmUp(schedule, 4)
    assert [float(warm(step)) for step in range(5)] == pytest.approx([0.1, 0.175, 0.225, 0.25, 0.2], rel=1e-6)


def test_a_triangle_is_that_of_airbench():
    """The learning rates are those of `get_lr` in Jordan's program, in which int(0.23 * 475) steps rise."""
    schedule = acr.Triangle(1.5, 475)
    rates = [float(schedule(step)) for step in (0, 54, 108, 109, 110, 292, 474, 475, 999)]
    factors = [
        0.2,
        0.2 + 0.8 * 54 / 109,
        0.2 + 0.8 * 108 / 109,
        1,
        1 - 0.93 / 366,
        1 - 0.93 / 2,
        0.07 + 0.93 / 366,
        0.07,
        0.07,
    ]
    assert rates == pytest.approx([1.5 * factor for factor in factors], rel=1e-5)
    assert float(acr.Triangle(1.5, 3)(0)) == 1.5  # too few steps to rise


def test_a_triangle_that_only_rises_is_refused():
    with pytest.raises(BadInput, match="rise"):
        acr.Triangle(1.5, 10, rise=1.0)


@pytest.mark.parametrize(
    "schedule",
    [
        acr.StepDecay(0.05, [3, 5], 0.1),
        acr.EpochExponentialDecay(0.1, 0.94, 2, 12.5),
        acr.LinearDecay(0.4, 30),
        acr.Triangle(0.4, 30),
        acr.WarmUp(acr.StepDecay(0.05, [20], 0.1), 10),
    ],
    ids=["step", "epoch", "linear", "triangle", "warm-up"],
)
def test_config_round_trip(schedule):
    serialize, deserialize = keras.optimizers.schedules.serialize, keras.optimizers.schedules.deserialize
    again = deserialize(serialize(schedule))
    assert type(again) is type(schedule)
    assert [float(again(step)) for step in range(60)] == [float(schedule(step)) for step in range(60)]


@pytest.mark.parametrize("boundaries", [[5, 3], [3, 3], [0], [-1]])
def test_boundaries_must_be_positive_and_increase(boundaries):
    with pytest.raises(BadInput, match="boundaries"):
        acr.StepDecay(0.05, boundaries, 0.1)


def test_an_interval_below_a_step_is_refused():
    with pytest.raises(BadInput, match="steps_per_epoch"):
        acr.EpochExponentialDecay(0.1, 0.94, 2, 0.25)


@pytest.mark.parametrize("make", [acr.LinearDecay, acr.Triangle, acr.WarmUp], ids=["linear", "triangle", "warm-up"])
def test_a_schedule_of_no_steps_is_refused(make):
    with pytest.raises(BadInput, match="steps must be a positive integer"):
        make(0.1, 0)


def test_schedules_are_those_of_keras():
    schedules = keras.optimizers.schedules
    ours, theirs = acr.LinearDecay(0.4, 30), schedules.PolynomialDecay(0.4, 30, end_learning_rate=0.0)
    assert [float(ours(step)) for step in range(40)] == [float(theirs(step)) for step in range(40)]
    ours, theirs = acr.EpochExponentialDecay(0.1, 0.94, 2, 2.6), schedules.ExponentialDecay(0.1, 5, 0.94, True)
    assert [float(ours(step)) for step in range(40)] == [float(theirs(step)) for step in range(40)]


def test_a_configuration_has_the_arguments_of_the_constructor():
    assert acr.LinearDecay(0.4, 30).get_config() == {"initial": 0.4, "steps": 30}
    arguments = {"initial": 0.1, "factor": 0.94, "epochs_per_decay": 2.0, "steps_per_epoch": 12.5}
    assert acr.EpochExponentialDecay(**arguments).get_config() == arguments


def test_steps_are_integers():
    with pytest.raises(BadInput, match=r"Received: boundaries=\[1\.5, 1\.9\]"):
        acr.StepDecay(0.1, [1.5, 1.9])
    for make in (lambda n: acr.LinearDecay(0.1, n), lambda n: acr.Triangle(0.1, n), lambda n: acr.WarmUp(abs, n)):
        with pytest.raises(BadInput, match=r"steps must be a positive integer. Received: steps=2\.5"):
            make(2.5)
    assert acr.LinearDecay(0.1, 2.0).get_config()["steps"] == 2


def test_a_warm_up_needs_a_schedule():
    with pytest.raises(BadInput, match="schedule must be a learning-rate schedule"):
        acr.WarmUp(0.1, 4)
