"""Chooses the `tf.distribute.Strategy` of a run and the precision of its devices."""

import tensorflow as tf

from allconv_resnet.environment import BFLOAT16_FLAGS, processor
from allconv_resnet.errors import BadInput
from allconv_resnet.training.engines import tf_config


def find_cluster(name="auto"):
    """Returns the cluster of TF_CONFIG for a strategy of several processes, and None for one of a single process.

    Args:
        name: Name of the strategy, see `create_strategy`. `"auto"` means the strategy that TF_CONFIG describes.

    Returns:
        `Cluster` or None.

    Raises:
        BadInput: if TF_CONFIG does not fit the strategy.
    """
    if name in ("one", "mirrored"):
        return None
    found = tf_config.read_cluster()
    if found is None:
        if name != "auto":
            raise BadInput(f"strategy {name} needs the environment variable TF_CONFIG, such as {tf_config.EXAMPLE}")
        return None
    jobs = [len(found.tasks_of(job)) for job in ("chief", "worker", "ps")]
    received = "Received: {} chief, {} worker and {} ps".format(*jobs)
    if name == "multi-worker" and found.asynchronous():
        raise BadInput(f"strategy multi-worker must have no parameter servers in TF_CONFIG. {received}")
    if (name == "parameter-server" or found.asynchronous()) and (jobs[0] != 1 or not jobs[1] or not jobs[2]):
        raise BadInput(
            f"strategy parameter-server must have 1 chief, and at least 1 worker and 1 ps in TF_CONFIG. {received}"
        )
    if found.this.job == tf_config.EVALUATOR:
        return found
    return found if name != "auto" or found.asynchronous() or len(found.workers()) > 1 else None


def create_strategy(name="auto", replicas=None, batch_size=None, cluster=None, peer_timeout=300):
    """Returns the `tf.distribute.Strategy` of a synchronous run.

    Args:
        name: `"one"` for one device, `"mirrored"` for all GPUs of this machine, `"multi-worker"` for the GPUs of all
            machines, or `"auto"` for the strategy of the cluster if there is one, and else mirrored if there are
            several GPUs.
        replicas: Integer or None, number of devices to mirror over. Without GPUs the CPU is split into that many
            logical devices, which is only useful for tests.
        batch_size: Integer or None, images of a step over all devices. The number of devices must divide it.
        cluster: `Cluster` or None, the result of `find_cluster`.
        peer_timeout: Number, seconds to wait for the other machines.

    Raises:
        BadInput: if there are fewer GPUs than replicas, the replicas do not divide the batch size, or other machines do
            not answer.
    """
    if cluster:
        return _multi_worker(replicas, batch_size, cluster, peer_timeout)
    gpus = tf.config.list_physical_devices("GPU")
    if name == "one" or (name == "auto" and replicas is None and len(gpus) < 2):
        if (replicas or 1) != 1:
            raise BadInput(f"strategy one has one replica. Received: replicas={replicas}")
        return tf.distribute.get_strategy()
    replicas = len(gpus) or 1 if replicas is None else replicas
    if replicas < 1 or (gpus and replicas > len(gpus)):
        raise BadInput(f"replicas must lie in [1, {len(gpus) or 'any'}] on this machine. Received: replicas={replicas}")
    require_even(batch_size, replicas)
    kind = "GPU" if gpus else "CPU"
    if not gpus:
        _split_cpu(replicas)
    return tf.distribute.MirroredStrategy([f"/{kind.lower()}:{i}" for i in range(replicas)])


def _multi_worker(replicas, batch_size, cluster, peer_timeout):
    if replicas is not None:
        raise BadInput(f"strategy multi-worker uses all GPUs of every machine. Received: replicas={replicas}")
    require_even(batch_size, len(cluster.workers()) * max(1, len(tf.config.list_physical_devices("GPU"))))
    tf_config.wait_for(cluster.workers(), cluster.this, peer_timeout)
    return tf.distribute.MultiWorkerMirroredStrategy(resolver(cluster))


def resolver(cluster):
    """Returns what tells a strategy of several processes which these are. TF_CONFIG itself may have an evaluator."""
    spec, this = tf.train.ClusterSpec(cluster.addresses()), cluster.this
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type=this.job, task_id=this.index, rpc_layer="grpc"
    )


def require_even(batch_size, replicas):
    """Raises `BadInput` if the number of replicas does not divide the batch size."""
    if batch_size is not None and batch_size % replicas:
        raise BadInput(f"batch_size must be a multiple of the replicas, {replicas}. Received: batch_size={batch_size}")


def random_states(model):
    """Returns the variables with the states of the random generators of a model, such as those of dropout."""
    return [variable for variable in model.non_trainable_variables if variable.path.endswith("seed_generator_state")]


def draw_apart(strategy, model):
    """Makes every replica draw different random numbers for dropout and similar layers.

    The states of the first replica stay as they are, and those of the others are computed from them.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: Keras model.
    """
    states = random_states(model)

    @tf.function
    def shift():
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.uint32)
        for state in states:
            state.assign(state + tf.stack([replica * tf.constant(0x9E3779B9, tf.uint32), 0]))  # not near other seeds

    if states and strategy.num_replicas_in_sync > 1:
        strategy.run(shift)


def gpu_names():
    """Returns the names of this machine's GPUs."""
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [str(detail.get("device_name", "unknown")) for detail in details]


def _split_cpu(replicas):
    try:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    except RuntimeError as error:  # TensorFlow has started already
        if len(tf.config.list_logical_devices("CPU")) < replicas:
            raise BadInput(
                f"TensorFlow has already started with fewer logical CPUs than replicas={replicas}"
            ) from error


def resolve_precision(precision, cpu_flags=None, gpu_capabilities=None):
    """Returns the precision that `auto` means on this hardware. Other precisions are returned as they are.

    bfloat16 is chosen if the hardware has instructions for it: AMX or AVX512-BF16 on a CPU, or a compute capability of
    8.0 or more on all GPUs.

    Args:
        precision: `"auto"`, `"float32"` or `"bfloat16"`.
        cpu_flags: Set of strings, as in /proc/cpuinfo. Defaults to this machine's.
        gpu_capabilities: Sequence of `(major, minor)`, one for each GPU. Defaults to this machine's.

    Returns:
        `"float32"` or `"bfloat16"`.
    """
    if precision != "auto":
        return precision
    if gpu_capabilities is None:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
        gpu_capabilities = [detail.get("compute_capability", (0, 0)) for detail in details]
    if gpu_capabilities:
        return "bfloat16" if min(gpu_capabilities) >= (8, 0) else "float32"
    flags = processor()[1] if cpu_flags is None else cpu_flags
    return "bfloat16" if BFLOAT16_FLAGS & set(flags) else "float32"
