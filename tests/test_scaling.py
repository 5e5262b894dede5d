"""The model behind docs/scaling.md obeys the laws that hold whatever its details are."""

from pathlib import Path

import pytest


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent.parent / "benchmarks")
    import scaling

    return scaling


def test_the_bandwidth_for_an_efficiency_gives_that_efficiency(scaling):
    for machines in (2, 6, 64):
        for efficiency in (0.5, 0.9):
            bandwidth = scaling.bandwidth_for(machines, 143e6, 5.2, efficiency)
            exchange = scaling.all_reduce_seconds(machines, 143e6, bandwidth)
            assert 5.2 / (5.2 + exchange) == pytest.approx(efficiency)


def test_the_gradients_are_those_of_the_network(scaling):
    import allconv_resnet as acr

    model = acr.imagenet_resnet(1000)
    assert 4 * sum(int(variable.value.shape.num_elements()) for variable in model.trainable_variables) == scaling.BYTES


@pytest.mark.parametrize("workers", [1, 2, 6, 16])
def test_each_other_worker_comes_between_once_on_the_average(scaling, workers):
    free = scaling.simulate(workers, 1, compute=1.0, size=1.0, bandwidth=1e6, steps=4_000)
    assert free["mean"] == pytest.approx(workers - 1, abs=0.01)
    assert free["updates_per_second"] == pytest.approx(workers, rel=0.03)  # nobody waits


def test_a_link_carries_no_more_than_it_can(scaling):
    narrow = scaling.simulate(16, 1, compute=1.0, size=1.0, bandwidth=4.0, steps=4_000)
    assert narrow["updates_per_second"] == pytest.approx(4.0, rel=0.03)
    wide = scaling.simulate(16, 6, compute=1.0, size=1.0, bandwidth=4.0, steps=4_000)
    assert narrow["updates_per_second"] < wide["updates_per_second"] <= 16 / (1 + 2 / 4) * 1.03


def test_a_pause_makes_weights_fresher(scaling):
    paused = scaling.simulate(2, 1, compute=1.0, size=1.0, bandwidth=1e6, steps=4_000, pause=1.0)
    assert paused["mean"] == pytest.approx(0.5, abs=0.03)  # half of the other's cycle


@pytest.mark.parametrize("task, factory", [("cifar", "cifar_resnet"), ("imagenet", "imagenet_resnet")])
def test_the_roofline_counts_the_operations_and_weights_of_the_networks(scaling, task, factory):
    import roofline

    import allconv_resnet as acr

    trained = getattr(acr, factory)().trainable_variables
    assert roofline.parameters(task) == sum(int(variable.value.shape.num_elements()) for variable in trained)
    operations, moved, seconds, _ = roofline.step(task, 128, 3.35e12)
    assert operations.sum() == 3 * 128 * roofline.networks.operations(task)
    assert (operations <= seconds * roofline.PEAK * (1 + 1e-9)).all() and (
        moved <= seconds * 3.35e12 * (1 + 1e-9)
    ).all()
