"""A residual network with a direct linear path from the input to the output (Shamir, arXiv 1804.06739, section 4)."""

from typing import Any, Self

import keras
from keras import layers

from allconv_resnet.errors import BadInput
from allconv_resnet.types import Config


@keras.saving.register_keras_serializable(package="allconv_resnet")
class ResidualWithLinearPath(keras.Model):
    """The predictor `<w, x> + <v, f_theta(x)>` of Shamir (arXiv 1804.06739, section 4).

    The objective is convex in (w, v) for every theta. Projected gradient descent on (w, v) therefore ends no worse than
    the best linear predictor of the ball, independently of theta (see `projected_sgd`). Both w and v are initialized
    with zeros.

    Args:
        branch: Keras model f_theta with one real input and one real output of any shape, which are flattened.
        outputs: Positive integer, number of predictions.
        name: String, name of the model.
        **kwargs: Arguments of `keras.Model`, such as `trainable`.

    Call arguments:
        x: Float tensor of the input shape of the branch.

    Returns:
        Float tensor `[n, outputs]`.

    Raises:
        BadInput: if the branch has several inputs or outputs, or complex ones.

    Example:

    >>> branch = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu")])
    >>> model = ResidualWithLinearPath(branch)
    >>> model.compile("sgd", "mse")
    >>> model.output_shape
    (None, 1)
    """

    def __init__(
        self, branch: keras.Model, outputs: int = 1, name: str = "residual_with_linear_path", **kwargs: Any
    ) -> None:
        if len(branch.inputs) != 1 or len(branch.outputs) != 1:
            raise BadInput(
                f"A residual branch must have one input and one output. "
                f"Received: {len(branch.inputs)} inputs and {len(branch.outputs)} outputs"
            )
        if any("float" not in tensor.dtype for tensor in (branch.inputs[0], branch.outputs[0])):
            raise BadInput(
                f"A residual branch must have a real input and output. "
                f"Received: dtypes {branch.inputs[0].dtype} and {branch.outputs[0].dtype}"
            )
        policy = branch.dtype_policy
        x = keras.Input(branch.inputs[0].shape[1:], dtype=branch.inputs[0].dtype)
        dense = {"use_bias": False, "kernel_initializer": "zeros", "dtype": policy}
        w = layers.Dense(outputs, name="w", **dense)
        v = layers.Dense(outputs, name="v", **dense)
        linear = w(layers.Flatten(name="flat_input", dtype=policy)(x))
        nonlinear = v(layers.Flatten(name="flat_features", dtype=policy)(branch(x)))
        super().__init__(x, layers.Add(name="prediction", dtype=policy)([linear, nonlinear]), name=name, **kwargs)
        self._outputs_count = outputs

    @property
    def branch(self) -> keras.Model:
        """The model f_theta."""
        return next(layer for layer in self.layers if isinstance(layer, keras.Model))

    def get_config(self) -> Config:
        branch = keras.saving.serialize_keras_object(self.branch)
        return {"branch": branch, "outputs": self._outputs_count, "name": self.name}

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict[str, Any] | None = None) -> Self:
        branch = keras.saving.deserialize_keras_object(config["branch"], custom_objects)
        return cls(**{**config, "branch": branch})
