import shutil

import numpy as np
import pytest
from PIL import Image
from training.runs import SMALL, TINY, Run

from allconv_resnet.training.loop import train


@pytest.fixture
def tiny():
    """A recipe that takes a second."""
    return TINY


@pytest.fixture
def start():
    """Starts a training command; those still at work at the end of the test are killed."""
    runs = []

    def begin(*arguments, **options):
        runs.append(Run(*arguments, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(SMALL, run_dir) is None
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def write_image(tmp_path):
    def write():
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
        return tmp_path / "image.png"

    return write
