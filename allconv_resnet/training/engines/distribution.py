"""One flag -> the devices that share the work, and the precision they compute in."""

import tensorflow as tf

from allconv_resnet.environment import BFLOAT16_FLAGS, processor
from allconv_resnet.errors import BadInput
from allconv_resnet.training.engines import tf_config


def find_cluster(name="auto"):
    """Returns the cluster of TF_CONFIG for a strategy of several processes, and None for one of a single process.

    Args:
        name: See `create`. `"auto"` takes the strategy that TF_CONFIG is made for.

    Raises:
        BadInput: if there is no such strategy, or TF_CONFIG is not what it needs.
    """
    if name in ("one", "mirrored"):
        return None
    found = tf_config.read()
    if found is None:
        if name != "auto":
            raise BadInput(f"strategy {name} needs the environment variable TF_CONFIG, such as {tf_config.EXAMPLE}")
        return None
    jobs = [len(found.of(job)) for job in ("chief", "worker", "ps")]
    received = "Received: {} chief, {} worker and {} ps".format(*jobs)
    if name == "multi-worker" and found.asynchronous():
        raise BadInput(f"strategy multi-worker must have no parameter servers in TF_CONFIG. {received}")
    if (name == "parameter-server" or found.asynchronous()) and (jobs[0] != 1 or not jobs[1] or not jobs[2]):
        raise BadInput(
            f"strategy parameter-server must have 1 chief, and at least 1 worker and 1 ps in TF_CONFIG. {received}"
        )
    if found.this.job == "evaluator":
        raise BadInput("TF_CONFIG must not make this task an evaluator: `allconv-resnet evaluate` evaluates a run")
    return found if name != "auto" or found.asynchronous() or len(found.workers()) > 1 else None


def create(name="auto", replicas=None, batch_size=None, cluster=None, peer_timeout=300):
    """Returns the `tf.distribute.Strategy` of a run whose replicas work in step.

    Args:
        name: `"one"` device, `"mirrored"` over all GPUs of this machine, `"multi-worker"` over those of all machines,
            or `"auto"`: what the cluster is for if there is one, else mirrored where there are several GPUs.
        replicas: Integer or None: how many devices to mirror over. Without GPUs the CPU is split into that many
            logical devices, which is of use for tests alone.
        batch_size: Integer or None: images a step, over all devices; replicas must divide it.
        cluster: Of `find_cluster`.
        peer_timeout: Number, seconds to wait for the other machines.

    Raises:
        BadInput: if there is no such strategy, there are fewer GPUs than replicas, the batch does not divide, or other
            machines do not answer.
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
    return tf.distribute.MultiWorkerMirroredStrategy()


def require_even(batch_size, replicas):
    """Makes sure that replicas can share a batch, as `create` does."""
    if batch_size is not None and batch_size % replicas:
        raise BadInput(f"batch_size must be a multiple of the replicas, {replicas}. Received: batch_size={batch_size}")


def random_states(model):
    """Returns the states of dropout and its like."""
    return [variable for variable in model.non_trainable_variables if variable.path.endswith("seed_generator_state")]


def draw_apart(strategy, model):
    """Gives every replica draws of its own for dropout and its like, from the states of the first, which are kept."""
    states = random_states(model)

    @tf.function
    def shift():
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.uint32)
        for state in states:
            state.assign(state + tf.stack([replica * tf.constant(0x9E3779B9, tf.uint32), 0]))  # far from other seeds

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
    except RuntimeError as error:  # TensorFlow has started
        if len(tf.config.list_logical_devices("CPU")) < replicas:
            raise BadInput(
                f"TensorFlow has already started with fewer logical CPUs than replicas={replicas}"
            ) from error


def resolve_precision(precision, cpu_flags=None, gpu_capabilities=None):
    """Returns what `auto` means on this hardware; `float32` and `bfloat16` are returned as they are.

    bfloat16 is chosen where it has instructions of its own: AMX or AVX512-BF16 on a CPU, compute capability 8.0 and up
    on every GPU.

    Args:
        precision: `"auto"`, `"float32"` or `"bfloat16"`.
        cpu_flags: Set of strings, as in /proc/cpuinfo. Defaults to this machine's.
        gpu_capabilities: Sequence of `(major, minor)`, one for each GPU. Defaults to this machine's.
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
