"""The last block as a predictor W (x + V f) against the logits of the network, and its certificates."""

import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.theory import landscape

IMAGES = np.random.default_rng(0).standard_normal((24, 8, 8, 3)).astype("float32")
LABELS = np.arange(24) % 3


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("options", [{"activation": "tanh"}, {"kernel_sizes": (1, 2)}, {"trainable_head": True}])
def test_the_form_has_the_logits_of_the_network(strides, options):
    stages = [acr.Stage(1, 16), acr.Stage(1, 18, strides)]
    model = acr.AllConvResNet((8, 8, 3), 3, stages=stages, initialization="he", **options)
    form = landscape.last_block(model, IMAGES, batch_size=10)
    problem = landscape.Problem(form.x, LABELS, "cross_entropy", 3)
    logits = np.asarray(model(IMAGES, training=False))
    np.testing.assert_allclose(problem.predictions(form.W, form.V, form.features), logits, rtol=1e-4, atol=1e-5)


def test_the_theorem_holds_for_the_last_block():
    """Unlike for the network as a whole, no measurement is needed: worse than linear means a gradient or curvature."""
    model = acr.AllConvResNet((8, 8, 3), 3, stages=[acr.Stage(2, 16)], trainable_head=True)
    form = landscape.last_block(model, IMAGES)
    problem = landscape.Problem(form.x, LABELS, "cross_entropy", 3)
    certificate = landscape.certify(problem, form.W, form.V, form.features)
    assert certificate.objective > certificate.linear
    assert 0 < certificate.gradient_bound <= certificate.gradient_norm
    assert certificate.direction.curvature < 0
    *_, decrease = landscape.escape(problem, form.W, form.V, form.features, certificate.direction)
    assert decrease > 0


@pytest.mark.parametrize(
    "options", [{"normalization": "batch"}, {"use_bias": True}, {"final_activation": "relu"}, {"shortcut": None}]
)
def test_other_networks_are_refused(options):
    model = acr.AllConvResNet((8, 8, 3), 3, stages=[acr.Stage(1, 16)], **options)
    with pytest.raises(BadInput, match="must end in a ResidualBlock"):
        landscape.last_block(model, IMAGES)
