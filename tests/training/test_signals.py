"""Signals that stop a run, those that it was started to ignore, and the end of `--minutes`."""

import concurrent.futures

import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.training.stop_signal import StopSignal

IGNORING = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script does for its background jobs
from allconv_resnet.interrupts import interruptible
from allconv_resnet.training.stop_signal import StopSignal
with interruptible(), StopSignal() as stop:
    for number in (signal.SIGHUP, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert stop.signal is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == signal.SIGTERM
assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGINT) == signal.SIG_IGN
"""
SAVING = """
import os, signal, time
from allconv_resnet.training.stop_signal import StopSignal
with StopSignal(minutes=0.3 / 60) as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.6)  # the run is being saved
    assert stop.signal == signal.SIGTERM
with StopSignal(minutes=0.1 / 60) as stop:
    time.sleep(0.5)
    assert stop.signal == signal.SIGALRM
"""


@pytest.mark.parametrize("program", [IGNORING, SAVING], ids=["ignored", "minutes"])
def test_signals(program, run_python):
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr


def test_minutes_outside_of_the_main_thread_are_refused():
    def enter(minutes):
        with StopSignal(minutes) as stop:
            return stop.signal

    with concurrent.futures.ThreadPoolExecutor() as threads:
        assert threads.submit(enter, None).result() is None
        with pytest.raises(BadInput, match="in the main thread"):
            threads.submit(enter, 1).result()


def test_more_minutes_than_a_timer_can_have_are_as_good_as_none():
    with StopSignal(minutes=2e8) as stop:
        assert stop.signal is None
