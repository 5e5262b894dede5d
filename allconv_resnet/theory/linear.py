"""Linear residual networks, section 2 of Hardt & Ma (arXiv 1611.04231).

`factorize` constructs a global optimum of small norm and `norm_bound` bounds that norm (theorem 2.1). `risk`,
`gradient` and `gradient_lower_bound` show that every critical point of norm below 1 is a global minimum (theorem 2.2,
with equation 2.3 corrected); `gradient_lower_bound_anywhere` and `certified_risk` need no bound on the norm, and
`singular_critical_point` shows where they end. `train_linear` runs gradient descent with and without the identity in
the parameterization; `initial_factors` are the starts that the literature compares. Everything is NumPy and SciPy in
float64.

The examples assume `from allconv_resnet.theory.linear import *`, `import keras` and `import numpy as np`.
"""

from allconv_resnet.theory.hardt_ma.critical_points import (
    certified_risk,
    gradient_lower_bound_anywhere,
    singular_critical_point,
)
from allconv_resnet.theory.hardt_ma.factorization import (
    add_flipped_dimension,
    factorize,
    gamma,
    norm,
    norm_bound,
    product,
)
from allconv_resnet.theory.hardt_ma.linear_risk import (
    gradient,
    gradient_lower_bound,
    gradient_lower_bound_as_printed,
    risk,
)
from allconv_resnet.theory.hardt_ma.linear_training import LinearTraining, initial_factors, train_linear

__all__ = [
    "LinearTraining",
    "add_flipped_dimension",
    "certified_risk",
    "factorize",
    "gamma",
    "gradient",
    "gradient_lower_bound",
    "gradient_lower_bound_anywhere",
    "gradient_lower_bound_as_printed",
    "initial_factors",
    "norm",
    "norm_bound",
    "product",
    "risk",
    "singular_critical_point",
    "train_linear",
]
