"""The weights of an asynchronous run on its parameter servers, and the step of a worker.

The workers do not wait for each other. A gradient is applied to weights that other workers may have changed since they
were read, but no update may be lost. Reading the momentum, changing it and writing it back would lose updates.
Therefore the whole update of a variable is one operation under the lock of that variable, and so is the counting. The
changes of moving averages are added in the same way. Workers that read the state of a random generator at the same time
draw the same numbers from it, so they may drop out the same units.
"""

import tensorflow as tf

from allconv_resnet.training.engines.engine import SUMS
from allconv_resnet.training.engines.steps import batch_sums, cross_entropy


class Servers:
    """The state of a run on the parameter servers.

    The state is initialized from objects on this machine and can be copied back to them. The checkpoints of
    asynchronous runs are therefore the same as those of others, and a run can continue with another strategy.

    Attributes:
        step: int64 variable, number of updates that were applied.
        lag: int64 variable, sum over these updates of their staleness: the number of other updates between reading the
            weights and changing them.
        sums: float64 variable, `SUMS` since the last log.

    Args:
        strategy: `tf.distribute.ParameterServerStrategy`.
        model: Keras model on this machine.
        optimizer: `Momentum` on this machine, built.
        totals: `Totals` on this machine.
    """

    def __init__(self, strategy, model, optimizer, totals):
        self.model, self.optimizer, self.totals = model, optimizer, totals
        with strategy.scope():

            def copies(variables):
                return [tf.Variable(variable.numpy(), trainable=False) for variable in variables]

            self.weights = copies(model.trainable_variables)
            self.fixed = copies(model.non_trainable_variables)  # the projection, and moving averages
            self.velocities = copies(optimizer.velocities)
            self.step = tf.Variable(int(optimizer.iterations.numpy()), dtype=tf.int64, trainable=False)
            self.lag = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.sums = tf.Variable(totals.sums.numpy(), trainable=False)
        self.decays = [optimizer.weight_decay_of(variable) for variable in model.trainable_variables]

    def apply(self, gradients, learning_rate, read_at, sums=None):
        """Applies the gradients of one batch, and then counts the update.

        Args:
            gradients: Tensors, one for each of `weights`.
            learning_rate: Scalar tensor.
            read_at: int64 scalar, the value of `step` when the weights were read.
            sums: float32 tensor `[len(SUMS)]` of the batch, or None.
        """
        applied = [
            # The same update as in `Momentum.update_step`, under the lock of the variable.
            tf.raw_ops.ResourceApplyMomentum(
                var=weight.handle,
                accum=velocity.handle,
                lr=tf.cast(learning_rate, weight.dtype),
                grad=tf.cast(gradient, weight.dtype),
                momentum=tf.cast(self.optimizer.momentum, weight.dtype),
                use_locking=True,
                use_nesterov=self.optimizer.nesterov,
            )
            for weight, velocity, gradient in zip(self.weights, self.velocities, gradients, strict=True)
        ]
        with tf.control_dependencies(applied):
            count = self.step.assign_add(1, read_value=True)
        self.lag.assign_add(tf.cast(count, tf.int64) - 1 - read_at)
        if sums is not None:
            self.sums.assign_add(tf.cast(sums, tf.float64))

    def pull(self):
        """Copies the state to the objects on this machine. No step may be in progress."""
        own = [*self.model.trainable_variables, *self.model.non_trainable_variables, *self.optimizer.velocities]
        for variable, theirs in zip(own, [*self.weights, *self.fixed, *self.velocities], strict=True):
            variable.assign(theirs.read_value())
        self.optimizer.iterations.assign(tf.cast(self.step.read_value(), self.optimizer.iterations.dtype))
        self.totals.sums.assign(self.sums.read_value())

    def reset(self):
        """Sets the sums to 0, both on the servers and on this machine."""
        self.totals.reset()
        self.sums.assign(tf.zeros(len(SUMS), tf.float64))
        self.lag.assign(0)


def make_worker_step(strategy, servers, schedule, batch_size, clip_norm=None, label_smoothing=0.0):
    """Returns a compiled function (iterator) -> None by which a worker makes one step.

    A worker reads the weights once, distributes its batch over its GPUs, and sends the sum of their gradients.

    Args:
        strategy: `tf.distribute.ParameterServerStrategy`.
        servers: `Servers`.
        schedule: Function from the step to the learning rate.
        batch_size: Integer, images of a step over all GPUs of a worker.
        clip_norm: Float or None, largest global norm of a worker's gradient.
        label_smoothing: Float, see `steps.cross_entropy`.
    """
    model = servers.model

    def replica_step(weights, fixed, images, labels, importance=None):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, fixed = model.stateless_call(weights, fixed, images, training=True)
            losses = cross_entropy(labels, logits, label_smoothing)
            loss = tf.nn.compute_average_loss(losses, importance, global_batch_size=batch_size)
        gradients = tape.gradient(loss, weights)
        sums = batch_sums(labels, logits, losses, tf.ones_like(losses) if importance is None else importance)
        return gradients, fixed, sums

    @tf.function
    def worker_step(iterator):
        read_at = tf.identity(servers.step.read_value())
        with tf.control_dependencies([read_at]):
            weights = [tf.identity(weight.read_value()) for weight in servers.weights]
            fixed = [tf.identity(value.read_value()) for value in servers.fixed]
        results = strategy.run(replica_step, args=(weights, fixed, *next(iterator)))
        gradients = [strategy.reduce("SUM", gradient, axis=None) for gradient in results[0]]
        if clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
        pairs = zip(gradients, weights, servers.decays, strict=True)
        gradients = [gradient + decay * weight if decay else gradient for gradient, weight, decay in pairs]
        for before, variable, after in zip(fixed, servers.fixed, results[1], strict=True):
            if after is before:
                continue
            if before.dtype.is_floating:  # a moving average: other workers add their own changes to it
                variable.assign_add(strategy.reduce("MEAN", after, axis=None) - before)
            else:  # the state of a random generator, of which there is no mean
                variable.assign(strategy.experimental_local_results(after)[0])
        servers.apply(gradients, schedule(read_at), read_at, strategy.reduce("SUM", results[2], axis=None))

    return worker_step
