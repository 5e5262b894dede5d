"""Every option of the training commands, with values of all kinds: there is a job, or one sentence and the status 2."""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allconv_resnet import cli, recipes
from allconv_resnet.errors import BadInput
from allconv_resnet.job import Job
from allconv_resnet.part import flat_fields
from allconv_resnet.recipes.parts import KINDS

TINY = ["--recipe", "digits", "--stem", "4", "3", "4", "1", "--stages", "1", "8", "1", "--batch-size", "16"]
INTEGERS = ["0", "-1", "1", "2", "3", "16", "255", "65535", "65536", "99999999", str(2**31), str(2**63), "9" * 20]
FLOATS = ["nan", "inf", "-inf", "0.0", "-0.0", "1e-320", "1e300", "-1e300", "0.5", "1e30", "0.999", "2.5", "1_0"]
STRINGS = ["", " ", "None", "relu", "he", "batch", "identity", "a/b", "../x", "-", "x" * 300, "é", "\x00", "\n", "{}"]
WORDS = ["Dense", "softmax", "LeakyReLU", "prelu", "orthogonal", "Zeros", "GlorotUniform", "linear", "scaled", "auto"]
VALUES = st.sampled_from(INTEGERS + FLOATS + STRINGS + WORDS) | st.integers().map(str) | st.floats().map(str)


def every_option():
    """The names of all options: the fields of the job, of its recipe, and of all kinds of parts."""
    names = {field.name for field in dataclasses.fields(Job)} - {"recipe", "base"}
    names -= {f"{part}_kind" for part in KINDS}
    for kind in (recipes.Run(), *(kind for table in KINDS.values() for kind in table.values())):
        names |= set(flat_fields(kind))
    return sorted({*names, *KINDS, "name", "seed", "precision"})


OPTIONS = every_option()
BOOLEANS = {"export", "flip", "nesterov", "use_bias", "whitened_stem", "trainable_head", "mirror_average"}
KIND_CHOICES = st.lists(
    st.sampled_from([f"--{part}={kind}" for part, table in KINDS.items() for kind in table]), max_size=2
)


@st.composite
def one_option(draw):
    name = draw(st.sampled_from(OPTIONS))
    if name in BOOLEANS:
        return [draw(st.sampled_from([f"--{name}", f"--no-{name}", f"--{name}=1"])).replace("_", "-")]
    return [f"--{name.replace('_', '-')}", *draw(st.lists(VALUES, max_size=6))]


def outcome(arguments):
    """Returns the recipe that can be built, or the sentence or status with which the command line is refused."""
    try:
        job = cli.parse_job(("digits", "cifar10"), arguments)
        job.recipe.build_schedule()(0)
        job.recipe.build_optimizer()
        job.recipe.require_memory()
        job.recipe.build_model()
        return job.recipe
    except BadInput as error:
        return str(error)
    except SystemExit as stop:
        return stop.code


def check(arguments):
    said = outcome(arguments)
    if isinstance(said, str):
        assert said.strip() and len(said.splitlines()) == 1 and "function_node" not in said, said
    elif not isinstance(said, recipes.Recipe):
        assert said == 2


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(one_option(), min_size=1, max_size=2), KIND_CHOICES)
def test_no_value_of_any_option_ends_in_a_traceback(options, kinds):
    check([*TINY, *kinds, *(word for option in options for word in option)])


@pytest.mark.parametrize("option", sorted(set(OPTIONS) - BOOLEANS))
def test_each_option_with_each_kind_of_value(option, capsys):
    kinds = [(part, kind, value) for part, table in KINDS.items() for kind, value in table.items()]
    owner = next((f"--{part}={kind}" for part, kind, value in kinds if option in flat_fields(value)), None)
    for value in ("nan", "inf", "-1", "0", "1e300", "9" * 20, "", "x"):
        check([*TINY, *([owner] if owner else []), f"--{option.replace('_', '-')}", value])
