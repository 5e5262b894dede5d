"""The types of public arguments and results that neither Keras nor NumPy names."""

import os
from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any
"""A tensor of the backend on which Keras runs, or an array where Keras takes one. The class depends on the backend."""

Dataset = Any
"""A `tf.data.Dataset`. TensorFlow does not declare its types."""

Shape = Sequence[int | None]
"""The shape of a tensor. None stands for a size that is not known yet."""

StrPath = str | os.PathLike[str]
"""A path of a file or directory."""

Config = dict[str, Any]
"""What `get_config` returns and `from_config` takes: the arguments of a constructor, as JSON has them."""

Activation = str | Callable[..., Tensor]
"""The name of an activation of Keras, a function or a layer."""

Progress = Callable[[int, int], object]
"""A function that is called with how many parts of the work are done, and with the number of all parts."""
