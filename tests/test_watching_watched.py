"""What is kept of all that was seen, and what follows from it."""

from dataclasses import replace

import pytest

from loadgen.watching.look import Look
from loadgen.watching.watched import CURVE_S, MOMENTS, Watched
from tests.watching import ANSWER, URL, counted, seen, source


class TestWatched:
    def test_the_rate_is_that_of_the_last_seconds(self) -> None:
        assert counted(100).rate is None
        assert counted(100, 300, 300).rate == 100
        assert counted(*[0] * 50, *range(0, 110, 10)).rate == 10
        assert counted(0, 6000, every_s=60).rate == 100

    def test_no_rate_spans_a_loss_of_memory(self) -> None:
        assert counted(900, 1000, 0).rate is None
        assert counted(900, 1000, 0, 40, 80).rate == 40
        assert counted(5, 0, 900, 3, 9).rate == 6

    def test_trouble_keeps_what_was_seen_and_ends_with_an_answer(self) -> None:
        watched = seen().failed("away")
        assert (watched.answer, watched.trouble) == (ANSWER, "away")
        assert watched.saw(Look(ANSWER), 1001.0).trouble == ""

    def test_a_stream_that_is_not_there_is_trouble(self) -> None:
        watched = Watched(URL, "x", 1.0).saw(Look(None, others=tuple("abcde")), 0.0)
        assert watched.trouble == "there is no stream 'x' yet: there are a, b, c and 2 more"
        assert Watched(URL, "x", 1.0).saw(Look(None), 0.0).trouble.endswith("yet")

    @pytest.mark.parametrize("every_s", [0.1, 1.0, 100.0])
    def test_it_does_not_grow_for_ever_and_keeps_enough(self, every_s: float) -> None:
        watched = counted(*range(5000), every_s=every_s)
        assert MOMENTS <= len(watched.moments) <= max(MOMENTS, 2 * CURVE_S / every_s) + 1
        assert watched.moments[-1].count == 4999
        assert watched.at - watched.moments[0].at >= 2 * CURVE_S

    def test_complete_or_not_and_why(self) -> None:
        assert seen().why == "4 live, none silent"
        silent = [source(at, state="silent") for at in range(1, 6)]
        assert (
            seen(*silent, complete=False, live=0, silent=5).why
            == "0 live, 5 silent: worker-1, worker-2, worker-3 and 2 more"
        )
        starting = seen(complete=False)
        assert starting.why == "it has not listened for long enough, or has no memory for a source"
        assert replace(starting, not_ready="wait").why == "wait"
        assert Watched(URL, "x", 1.0).why == ""
