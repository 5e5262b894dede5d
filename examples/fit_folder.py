"""Trains a network with Keras's `fit` on a folder of images, one folder a class.

python examples/fit_folder.py DIR NAME.keras     # DIR/CLASS/*.jpg; a fifth of the images is held out for validation
"""

import os
import sys

import keras

import allconv_resnet as acr


def main(directory, path, image_size=(32, 32), epochs=10):
    if os.path.exists(path):
        sys.exit(f"{path} exists. Give the trained network another name.")
    options = {"image_size": image_size, "batch_size": 32, "validation_split": 0.2, "seed": 0}
    train, validation = keras.utils.image_dataset_from_directory(directory, subset="both", **options)
    classes = train.class_names
    stages = [acr.Stage(1, 32, 2), acr.Stage(1, 64, 2)]
    model = acr.AllConvResNet((*image_size, 3), len(classes), stages=stages, initialization="he")
    model.compile(
        acr.Momentum(0.05, momentum=0.9, weight_decay=1e-4, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        acr.augmented(train, padding=2, flip=False),  # digits and letters are other ones in a mirror
        validation_data=validation.map(lambda images, labels: (acr.standardize(images), labels)),
        epochs=epochs,
        verbose=2,
    )
    model.save(path)
    return history.history["val_accuracy"][-1]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Two arguments are needed: the folder of images, and a name for the network such as NAME.keras.")
    print(f"validation accuracy {main(*sys.argv[1:]):.1%}; the network is in {sys.argv[2]}")
