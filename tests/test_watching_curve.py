"""The median of the last minutes: its steps of time, its columns, its rows."""

from dataclasses import replace

import pytest

from loadgen.watching.curve import BLOCKS, blocks, columns
from loadgen.watching.look import Look
from loadgen.watching.watched import CURVE_S, Moment, Watched
from tests.watching import ANSWER, URL, counted, drawn, seen


class TestTheCurve:
    def test_a_curve_goes_from_the_least_to_the_greatest(self) -> None:
        assert blocks([0, 1, 2, 3, 4, 5, 6, 7], 1) == [BLOCKS[1:]]
        assert blocks([float(at) for at in range(16)], 2) == [
            " " * 8 + BLOCKS[1:],
            BLOCKS[1:] + "█" * 8,
        ]
        assert blocks([1.0, None, 0.0], 1) == ["█ ▁"]

    def test_of_one_value_it_is_in_the_middle(self) -> None:
        assert blocks([5.0, 5.0], 1) == ["▄▄"]
        assert blocks([5.0], 2) == [" ", "█"]

    def test_of_nothing_it_is_nothing(self) -> None:
        assert blocks([None, None], 2) == ["  ", "  "]

    def test_it_knows_all_floats(self) -> None:
        assert blocks([-1.7e308, 0.0, 1.7e308], 1) == ["▁▅█"]
        assert blocks([0.0, 5e-324], 1) == ["▁█"]

    def test_its_columns_are_steps_of_time_of_which_the_last_is_now(self) -> None:
        moments = [Moment(at, at, 0) for at in (100.0, 101.0, 102.0, 103.5)]
        assert columns(moments, 4, 1.0, 103.9) == [100, 101, 102, 103.5]
        assert columns(moments, 2, 1.0, 103.9) == [102, 103.5]
        assert columns(moments, 3, 2.0, 103.9) == [None, 101, 103.5]

    def test_one_step_without_an_answer_is_no_gap_and_two_are_one(self) -> None:
        moments = [Moment(at, at, 0) for at in (100.0, 102.0, 105.0)]
        assert columns(moments, 6, 1.0, 105.0) == [100, 100, 102, None, None, 105]

    def test_no_column_changes_while_time_goes_on_within_a_step(self) -> None:
        moments = [Moment(100 + at / 3, at, 0) for at in range(60)]
        shown = [columns(moments, 20, 1.0, 119.7 + at / 100) for at in range(30)]
        assert all(one == shown[0] for one in shown)

    def test_the_curve_has_its_range_beside_it(self) -> None:
        watched = Watched(URL, "default", 1.0)
        for at in range(30):
            watched = watched.saw(Look(replace(ANSWER, median=float(at))), 1000.0 + at)
        shown = drawn(watched, 80, 24, now=1029.0)
        assert "█ 29\n" in shown
        assert "█ 0\n" in shown
        assert "the last 73 s" in shown
        assert "from 0 to 29" in drawn(watched, 80, 18, now=1029.0)

    def test_that_is_the_range_of_what_is_drawn_not_of_what_was_before(self) -> None:
        watched = Watched(URL, "default", 1.0)
        for at in range(400):
            median = 1000.0 if at < 50 else 5.0 if at < 380 else 9.0
            watched = watched.saw(Look(replace(ANSWER, median=median)), 1000.0 + at)
        assert watched.moments[0].median == 1000.0
        for height, most in ((24, "█ 9\n"), (18, "from 5 to 9\n")):
            shown = drawn(watched, 80, height, now=1399.0)
            assert most in shown
            assert "1,000" not in shown

    def test_of_minutes_without_an_answer_there_is_none(self) -> None:
        assert "the last" in drawn(seen(), 80, 24, now=1030.0)
        assert "the last" not in drawn(seen(), 80, 24, now=3000.0)

    @pytest.mark.parametrize(("every_s", "looks"), [(0.1, 3000), (1.0, 300), (30.0, 60)])
    def test_the_curve_holds_the_last_minutes(self, every_s: float, looks: int) -> None:
        watched = counted(*range(looks), every_s=every_s)
        for width in (60, 80, 200):
            shown = drawn(watched, width, 24, now=watched.at)
            (caption,) = [one for one in shown.splitlines() if "the last" in one]
            amount, unit = caption.split()[2:4]
            assert float(amount) * {"s": 1, "min": 60, "h": 3600}[unit.strip(",")] >= CURVE_S
            curve_ = next(one for one in shown.splitlines() if "▄" in one or "█" in one)
            assert curve_.count("█") + curve_.count("▄") > min(looks, width / 3) / 2
