"""What a signal does, before there is something to save and after."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cluster.coordination import OneProcess
from cluster.interrupts import Interrupted, Interrupts, farewell
from cluster.watch import Watch
from tests.running import ROOT


@pytest.fixture
def watch() -> Watch:
    return Watch(OneProcess(), leave=lambda code: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts(watch, number):
    watch.at("compiling", 10)
    with pytest.raises(Interrupted) as raised, Interrupts(watch):
        os.kill(os.getpid(), number)
        time.sleep(10)
    line, code = farewell(watch, raised.value)
    assert line.startswith(f"stopped by {number.name} while compiling")
    assert code == 128 + number


def test_where_there_are_steps_to_save_it_is_noted(watch):
    with Interrupts(watch) as interrupts, interrupts.noted():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        assert interrupts.signal == "SIGTERM"
        with pytest.raises(Interrupted):  # a second one does not wait
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)


def test_one_that_came_too_late_for_the_loop_is_obeyed_after_it(watch):
    with Interrupts(watch) as interrupts:
        with interrupts.noted():
            interrupts.obey()  # nothing came
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        with pytest.raises(Interrupted, match="SIGTERM"):
            interrupts.obey()


def test_a_second_one_does_not_break_off_the_way_out(watch):
    with Interrupts(watch):
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # raises nothing: the listener ends a process that does not leave


def test_handlers_are_put_back(watch):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Interrupts(watch):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


STUCK = """
import ctypes, threading
from cluster.coordination import OneProcess
from cluster.interrupts import Interrupts
from cluster.watch import Watch
watch = Watch(OneProcess())
with watch, Interrupts(watch):
    watch.at("compiling", 100)
    threading.Timer(0.5, lambda: print("ready", flush=True)).start()
    mutex, libc = (ctypes.c_byte * 64)(), ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever; it releases Python's lock, as XLA does
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_main_thread_that_is_not_in_python_ends_too(number):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal\n" + STUCK.replace("sleep(60)  #", "poll(0, 0, 60000)  #"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"error: stopped by {number.name} while compiling" in err
