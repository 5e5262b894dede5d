"""The public doors: their names, the examples of all docstrings, and equal numbers on TensorFlow and JAX."""

import doctest
import pkgutil
from importlib import import_module

import keras
import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet.theory import balduzzi, hardt_ma, shamir, tarnowski

MODULES = [
    module.name
    for package in (balduzzi, hardt_ma, shamir, tarnowski)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]
WITHOUT_EXAMPLES = ("embedding", "memorized_points", "random_matrices", "separation", "sweep")


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    if name.endswith("stacked_blocks") and keras.backend.backend() == "jax":
        pytest.skip("the examples show shapes of TensorFlow")
    results = doctest.testmod(
        import_module(name), extraglobs={"np": np, "keras": keras}, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert results.failed == 0
    assert results.attempted > 0 or name.endswith(WITHOUT_EXAMPLES)


def test_public_names():
    for name in ("spectral_density", "spectral_edges", "effective_cumulant", "weight_scale_for"):
        assert callable(getattr(acr.theory.isometry, name))
    for name in ("linear_optimum", "gradient_lower_bound", "negative_curvature", "certify", "ResidualWithLinearPath"):
        assert callable(getattr(acr.theory.landscape, name))


ON_JAX = """
import sys
import keras, numpy as np
from allconv_resnet.theory import isometry, landscape
assert keras.backend.backend() == "jax"
print(isometry.effective_cumulant("tanh", 1.0, 0.5, 10), *isometry.outliers("relu", 1.0, 0.0, 10))
net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "tanh")])
net.layers[0].kernel.assign(np.sin(np.arange(30.0) ** 2).reshape(6, 5))
for options in ({}, {"k": 1, "method": "lanczos"}):
    print(*isometry.jacobian_singular_values(net, np.ones(6) / 10, **options))
x = np.cos(np.arange(40.0)).reshape(10, 4)
problem = landscape.Problem(x, x[:, :1], lambda p, y: keras.ops.sum(keras.ops.sqrt(1 + (p - y) ** 2), axis=1))
branch = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh")])
branch.layers[0].kernel.assign(np.sin(np.arange(12.0)).reshape(4, 3))
certificate = landscape.certify(problem, np.zeros((1, 4)), np.ones((4, 3)), landscape.features_of(branch, x))
print(certificate.objective, certificate.direction.curvature)
found = landscape.certify_network(branch, x, np.ones((10, 3)), "squared")
print(found.objective, found.gradient_norm, found.largest)
run = landscape.fit_projected(landscape.ResidualWithLinearPath(branch), problem, 5, 1.0)
print(*run.objective)
print("tensorflow" in sys.modules, file=sys.stderr)
"""


@pytest.mark.slow
def test_everything_runs_on_jax_and_gives_the_same_numbers(run_python):
    outputs = {}
    for backend in ("jax", "tensorflow"):
        script = ON_JAX.replace('== "jax"', f'== "{backend}"')
        done = run_python("-c", script, KERAS_BACKEND=backend)
        assert done.returncode == 0, done.stderr
        outputs[backend] = np.array(done.stdout.split(), float)
        if backend == "jax":
            assert done.stderr.strip().endswith("False")  # TensorFlow was not loaded
    np.testing.assert_allclose(outputs["jax"], outputs["tensorflow"], rtol=1e-5)
