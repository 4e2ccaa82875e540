"""Of many that want a folder one has it, until it gives it back or is no more."""

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
from etils import epath

from checkpointing.lease import Lease
from errors import UserError

SECONDS = 2.0


def lease(folder: epath.Path, say: Callable[[str], object] = lambda line: None) -> Lease:
    return Lease(folder / ".lease", contextlib.nullcontext, SECONDS, say)


def vanish(held: Lease) -> None:
    """As if its process were killed."""
    held._stop.set()
    held._thread.join()


def test_a_lease_in_use_is_refused(folder: epath.Path) -> None:
    held = lease(folder)
    with pytest.raises(UserError, match=r"is in use by .*, process \d+, .*: wait for it, stop it"):
        lease(folder)
    held.check()
    held.release()


def test_a_lease_given_back_is_free_at_once(folder: epath.Path) -> None:
    lease(folder).release()
    began = time.monotonic()
    held = lease(folder)
    assert time.monotonic() - began < SECONDS / 2
    held.release()


def test_a_lease_of_one_that_was_killed_is_taken_after_its_time(folder: epath.Path) -> None:
    vanish(lease(folder))
    said: list[str] = []
    began = time.monotonic()
    held = lease(folder, say=said.append)
    assert time.monotonic() - began >= SECONDS
    assert len(said) == 1 and "waiting 2s to see whether it still is" in said[0]
    held.check()
    held.release()


def test_an_owner_that_was_away_stops_before_it_saves(folder: epath.Path) -> None:
    away = lease(folder)
    vanish(away)
    successor = lease(folder)
    with pytest.raises(UserError, match=r"was taken over by .*; this run stops"):
        away.check()
    away.release()  # does not take it from its owner
    successor.check()
    successor.release()


def test_of_two_that_wait_one_has_it(folder: epath.Path) -> None:
    vanish(lease(folder))
    got: list[Lease] = []
    refused: list[UserError] = []

    def one() -> None:
        try:
            got.append(lease(folder))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(got), len(refused)) == (1, 2)
    got[0].check()
    got[0].release()


def test_a_lease_that_was_deleted_stops_its_owner(folder: epath.Path) -> None:
    held = lease(folder)
    (folder / ".lease").unlink()
    with pytest.raises(UserError, match="taken over by nobody: its lease was deleted"):
        held.check()
    vanish(held)
