"""What makes the steps of a run, on one device or many: three engines behind one protocol, `engine.Engine`."""

import keras

from allconv_resnet.errors import BadInput

STRATEGIES = ("auto", "one", "mirrored", "multi-worker", "parameter-server")


def create(strategy="auto", replicas=None, peer_timeout=300):
    """Returns the engine for a strategy, on the backend that Keras runs on.

    Args:
        strategy: `"one"` device, `"mirrored"` over all accelerators of this machine, `"multi-worker"` over those of all
            machines, `"parameter-server"` for asynchronous training, or `"auto"`: what the environment variable
            TF_CONFIG describes if it is set, else all accelerators of this machine.
        replicas: Integer or None: how many devices share a batch. Without accelerators the CPU is split into that many
            logical devices, which is of use for tests alone.
        peer_timeout: Number, seconds to wait for the other machines of TF_CONFIG.

    Raises:
        BadInput: if there is no such strategy or backend, or TF_CONFIG is not what the strategy needs.
    """
    if strategy not in STRATEGIES:
        raise BadInput(f"strategy must be one of {', '.join(STRATEGIES)}. Received: strategy={strategy!r}")
    backend = keras.backend.backend()
    if keras.config.image_data_format() != "channels_last" or keras.config.floatx() != "float32":
        raise BadInput(
            "Keras must be configured with image_data_format channels_last and floatx float32 (~/.keras/keras.json). "
            f"Received: {keras.config.image_data_format()} and {keras.config.floatx()}"
        )
    if backend == "jax":
        from allconv_resnet.training.engines.jax import JaxEngine

        return JaxEngine(strategy, replicas)
    if backend != "tensorflow":
        raise BadInput(f"Training needs Keras on tensorflow or jax (KERAS_BACKEND). Received: {backend}")
    from allconv_resnet.training.engines.asynchronous import AsynchronousEngine
    from allconv_resnet.training.engines.distribution import find_cluster
    from allconv_resnet.training.engines.synchronous import SynchronousEngine

    cluster = find_cluster(strategy)
    if cluster and cluster.asynchronous():
        return AsynchronousEngine(cluster, replicas, peer_timeout)
    return SynchronousEngine(strategy, replicas, cluster, peer_timeout)
