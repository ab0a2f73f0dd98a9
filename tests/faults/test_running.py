"""What counts as a line that no service should write."""

from tests.faults.running import without_unborn

STARTED = {"event": "running", "level": "info"}
SPAWNED = 'File "…/multiprocessing/spawn.py", line 122, in spawn_main'
CUT = "_pickle.UnpicklingError: pickle data was truncated"
BEGINS = "Traceback (most recent call last):"


def test_a_worker_that_never_heard_what_to_do_is_passed_over() -> None:
    assert without_unborn([STARTED, BEGINS, SPAWNED, CUT, STARTED]) == [STARTED, STARTED]
    assert without_unborn([BEGINS, SPAWNED, "EOFError: Ran out of input"]) == []


def test_every_other_traceback_stays() -> None:
    ours = [BEGINS, 'File "stream/worker.py", line 1, in serve', "EOFError: Ran out of input"]
    assert without_unborn(ours) == ours, "it did get to our code"
    other = [BEGINS, SPAWNED, "KeyError: 'a'"]
    assert without_unborn([*other, BEGINS, SPAWNED, CUT]) == other
