"""What the baselines have in common: batch normalization after a convolution, pooling and the classifier."""

import keras
from keras import layers

from allconv_resnet.cpu import BatchNormalization


def normalize(x, dtype):
    return BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype)(x)


def average(x, dtype):
    return layers.GlobalAveragePooling2D(data_format="channels_last", dtype=dtype)(x)


def classify(x, num_classes, seed, dtype):
    initial = keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal", seed=seed)
    return layers.Dense(num_classes, kernel_initializer=initial, dtype=dtype, name="classifier")(average(x, dtype))


def model_of(images, logits, name, policy):
    """Returns a Keras model whose own dtype policy is that of its layers: `compile` asks it about scaling the loss."""
    model = keras.Model(images, logits, name=name)
    model.dtype_policy = policy
    return model
