"""Trains with Keras's `fit` on all GPUs of the machine. Without GPUs, the processor is split into two devices.

    python examples/fit_mirrored.py

Under a strategy, Keras clips the gradient of each device before it adds them up, and not their sum.
"""

import keras
import tensorflow as tf

import allconv_resnet as acr


def main(epochs=3):
    if not tf.config.list_physical_devices("GPU"):
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    strategy = tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices(kind)])

    images, labels = acr.load_data("digits").arrays("train")
    train = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels), seed=0).batch(64)
    with strategy.scope():
        stages = [acr.Stage(1, 32, 2), acr.Stage(1, 64, 2)]
        model = acr.AllConvResNet((32, 32, 3), 10, stem=(16, 3, 2, 1), stages=stages, initialization="he")
        model.compile(
            acr.Momentum(0.05, momentum=0.9, weight_decay=1e-4, global_clipnorm=0.5),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    history = model.fit(acr.augmented(train, padding=2, flip=False), epochs=epochs, verbose=2)
    return strategy.num_replicas_in_sync, history.history["accuracy"]


if __name__ == "__main__":
    replicas, accuracy = main()
    print(f"training accuracy {accuracy[-1]:.1%} on {replicas} devices")
