"""Trains a network further on other classes, with its first stages frozen.

    python examples/fine_tune.py NETWORK     # a run directory, a .keras file, an export, or a name such as cifar10-fast

For a run directory, a command does the same:
`allconv-resnet train --recipe RUN_DIR/config.json --dataset DATA --initialize-from RUN_DIR --freeze stem stage1`.
"""

import sys

import keras

import allconv_resnet as acr


def main(network, frozen=("stem", "stage1"), epochs=5):
    images, labels = acr.load_data("digits").arrays("train")
    images, odd = acr.standardize(images), labels % 2  # two new classes: even and odd

    base = acr.load(network)
    for layer in base.layers:
        if layer.name.startswith(frozen):
            layer.trainable = False
    outputs = keras.layers.Dense(2, name="odd")(base.get_layer("pool").output)
    model = keras.Model(base.input, outputs)

    model.compile(
        acr.Momentum(0.01, momentum=0.9, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(images, odd, batch_size=64, epochs=epochs, validation_split=0.2, verbose=2)
    return model, history.history["val_accuracy"][-1]


if __name__ == "__main__":
    print(f"validation accuracy {main(sys.argv[1])[1]:.1%}")
