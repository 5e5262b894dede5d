"""Seeds that were logged at other steps, on common steps."""

import numpy as np

from allconv_resnet.report.figures import at_common_steps


def test_seeds_that_were_tested_at_other_steps_are_drawn_together():
    seeds = [[(2, 80.0), (4, 60.0), (8, 40.0), (9, 30.0)], [(3, 75.0), (5, 50.0), (9, 20.0)]]
    steps, errors = at_common_steps(seeds)
    np.testing.assert_array_equal(steps, [3, 5, 9])
    np.testing.assert_allclose(errors, [[70, 75], [55, 50], [30, 20]])


def test_a_seed_is_drawn_no_further_than_it_went():
    seeds = [[(1, 10.0, 90.0), (2, 20.0, 80.0), (3, 30.0, 70.0)], [(1, 12.0, 92.0), (2, 22.0, 82.0)]]
    steps, minutes, errors = at_common_steps(seeds, columns=2)
    np.testing.assert_array_equal(steps, [1, 2])
    np.testing.assert_allclose(minutes, [[10, 12], [20, 22]])
    np.testing.assert_allclose(errors, [[90, 92], [80, 82]])
    steps, errors = at_common_steps([seeds[0], []])
    assert not len(steps) and errors.shape == (0, 2)
