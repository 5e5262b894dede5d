"""Engines make the steps of a run on one or many devices. All three have the protocol of `engine.Engine`."""

import keras

from allconv_resnet.environment import require_keras_settings
from allconv_resnet.errors import BadInput

STRATEGIES = ("auto", "one", "mirrored", "multi-worker", "parameter-server")


def create_engine(strategy="auto", replicas=None, peer_timeout=300):
    """Returns the engine for a strategy and for the backend that Keras uses.

    Args:
        strategy: `"one"` for one device, `"mirrored"` for all accelerators of this machine, `"multi-worker"` for the
            accelerators of all machines, `"parameter-server"` for asynchronous training, or `"auto"` for the strategy
            that the environment variable TF_CONFIG describes or, if it is not set, all accelerators of this machine.
        replicas: Integer or None, number of devices that share a batch. Without accelerators the CPU is split into
            that many logical devices, which is only useful for tests.
        peer_timeout: Number, seconds to wait for the other machines of TF_CONFIG.

    Returns:
        `Engine`.

    Raises:
        BadInput: if the strategy or the backend is unknown, or TF_CONFIG does not fit the strategy.
    """
    if strategy not in STRATEGIES:
        raise BadInput(f"strategy must be one of {', '.join(STRATEGIES)}. Received: strategy={strategy!r}")
    require_keras_settings()
    if keras.backend.backend() == "jax":
        from allconv_resnet.training.engines.jax import JaxEngine

        return JaxEngine(strategy, replicas)
    from allconv_resnet.training.engines.asynchronous import AsynchronousEngine
    from allconv_resnet.training.engines.distribution import find_cluster
    from allconv_resnet.training.engines.synchronous import SynchronousEngine

    cluster = find_cluster(strategy)
    if cluster and cluster.asynchronous():
        return AsynchronousEngine(cluster, replicas, peer_timeout)
    return SynchronousEngine(strategy, replicas, cluster, peer_timeout)


def keeps_run_directory(strategy="auto"):
    """Returns whether this process keeps the run directory. Of the machines of a job, one does.

    Args:
        strategy: See `create_engine`.
    """
    if keras.backend.backend() != "tensorflow":
        return True
    from allconv_resnet.training.engines.distribution import find_cluster

    cluster = find_cluster(strategy)
    return cluster is None or cluster.this == cluster.workers()[0]


def is_evaluator(strategy="auto"):
    """Returns whether TF_CONFIG makes this process an evaluator, which tests the checkpoints of the others.

    Args:
        strategy: See `create_engine`.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    from allconv_resnet.training.engines import distribution, tf_config

    cluster = distribution.find_cluster(strategy)
    return cluster is not None and cluster.this.job == tf_config.EVALUATOR
