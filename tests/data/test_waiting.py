import threading

import pytest

from data import waiting
from data.waiting import steadily


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "EVERY_S", 0.001)


def test_it_ticks_in_the_callers_thread_while_the_work_goes_on() -> None:
    ticks: list[int] = []
    enough = threading.Event()

    def tick() -> None:
        ticks.append(threading.get_ident())
        if len(ticks) == 3:
            enough.set()

    def work() -> int:
        assert enough.wait(30)  # goes on until it was told of three times
        return threading.get_ident()

    worker = steadily(work, tick)
    assert set(ticks) == {threading.get_ident()} and worker != threading.get_ident()


def test_errors_of_both_sides_are_raised_here() -> None:
    def fails() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        steadily(fails, lambda: None)
    release = threading.Event()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steadily(lambda: release.wait(30), stop)
    release.set()
