import pytest
from training.runs import TINY, Run


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
