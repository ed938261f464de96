"""What the page says, and that it keeps within its room."""

import io
import itertools
from dataclasses import replace

import pytest
from rich.console import Console

from loadgen.watching.look import Look
from loadgen.watching.page import Page, page
from loadgen.watching.shapes import large
from loadgen.watching.watched import Watched
from tests.watching import ANSWER, URL, drawn, seen, source

SIZES = [
    (60, 24),
    (80, 24),
    (80, 50),
    (120, 40),
    (200, 60),
    (40, 12),
    (30, 8),
    (20, 4),
    (5, 2),
    (1, 1),
]


class TestThePage:
    def test_it_says_all_there_is(self) -> None:
        shown = drawn(seen(), 120)
        for one in large("-2.329012"):
            assert one in shown
        for what in (
            "from -2.341234 to -2.31471",
            "2,360,000",
            "0.71 %  ━━",
            " epsilon 1.00 %",
            "yes  4 live, none silent",
            "50.8 kB  512 deltas, 0.25 % of 20.2 MB received",
            "worker-1  live   25.0 %",
            "12,000",
            "1,412",
            "12.7 kB",
            "1 s",
        ):
            assert what in shown, shown

    @pytest.mark.parametrize(("width", "height"), SIZES)
    @pytest.mark.parametrize("trouble", ["", "somebody is away and the reason is long " * 9])
    @pytest.mark.parametrize("number_of_workers", [0, 1, 4, 300])
    def test_it_keeps_within_the_terminal(
        self, width: int, height: int, trouble: str, number_of_workers: int
    ) -> None:
        rows = [source(at, worker=f"工作 {at}" * 9) for at in range(number_of_workers)]
        look = Look(replace(ANSWER, low=None), tuple(rows))
        watched = replace(Watched(URL * 9, "s" * 50, 1.0).saw(look, 1000.0), trouble=trouble)
        for one in (watched, replace(watched, answer=None), seen(median=1.2345678e-300)):
            lines = page(one, width, height, 1000.6)
            assert len(lines) <= height
            assert max(one.cell_len for one in lines) <= width
            assert all(line.plain.isprintable() for line in lines)

    def test_what_has_room_is_cut_nowhere(self) -> None:
        assert " epsilon 1.00 %\n" in drawn(seen(), 60, 24)
        for width, height in [(60, 24), (80, 24), (80, 50), (120, 40), (200, 60)]:
            assert "…" not in drawn(seen(), width, height)

    def test_the_median_is_large_where_there_is_room(self) -> None:
        assert large("-2.329012")[0] in drawn(seen(), 80, 24)
        assert large("-2.329012")[0] not in drawn(seen(), 80, 15)
        assert "-2.329012  from -2.341234" in drawn(seen(), 80, 15)

    def test_what_encloses_nothing_is_infinite(self) -> None:
        assert "from -∞ to ∞" in drawn(seen(low=None, high=None))

    def test_what_is_exact_says_so(self) -> None:
        shown = drawn(seen(exact=True, rank_error=0.0))
        assert "\n  exact" in shown
        assert "from" not in shown

    def test_what_is_not_complete_says_why(self) -> None:
        assert " no  3 live, 1 silent\n" in drawn(seen(complete=False, live=3, silent=1))

    def test_before_the_first_value(self) -> None:
        shown = drawn(seen(median=None, low=None, high=None, count=0, rank_error=0.0))
        assert "no values yet" in shown
        assert "the last" not in shown

    def test_before_the_first_answer(self) -> None:
        assert "Asking." in drawn(Watched(URL, "default", 1.0))
        shown = drawn(Watched(URL, "default", 1.0).failed("it is away"))
        assert "it is away.\n  Asking again.\n" in shown

    def test_away_it_keeps_the_last_numbers_and_says_how_old_they_are(self) -> None:
        shown = drawn(seen().failed("it is away"), now=1034.0)
        assert "it is away.\n  Asking again. These numbers are 34 s old." in shown
        assert "2,360,000" in shown
        assert "35 s" not in drawn(seen(), now=1000.0)
        assert "34 s\n" in shown, "who was heard 0.4 s before was not heard since"

    def test_away_all_of_them_are_dimmed(self) -> None:
        console = Console(width=80, color_system="standard", file=io.StringIO())

        def dimmed(watched: Watched) -> list[bool]:
            """Each piece of text that has a number in it, but for how old they are."""
            lines = page(watched, 80, 40, 1001.0)
            pieces = itertools.chain.from_iterable(one.render(console) for one in lines)
            told = [one for one in pieces if "2,360,000" in one.text or "599,999" in one.text]
            assert len(told) == 2
            return [bool(one.style and one.style.dim) for one in told]

        assert not any(dimmed(seen()))
        assert all(dimmed(seen().failed("away")))

    def test_a_certificate_at_epsilon_fills_its_bar_and_red_is_beyond(self) -> None:
        assert "─" not in certificate(seen(rank_error=0.01))
        full = certificate(seen(rank_error=0.01)).count("━")
        assert certificate(seen(rank_error=0.005)).count("━") == full // 2
        for error, style in ((0.01, "green"), (0.02, "red")):
            lines = page(seen(rank_error=error), 80, 40, 1001.0)
            (found,) = [one for one in lines if "certificate" in one.plain]
            assert style in {str(span.style) for span in found.spans}

    def test_another_stream_has_its_name_in_the_title(self) -> None:
        assert "median of cpu" in drawn(replace(seen(), stream="cpu"))
        assert "median of" not in drawn(seen())

    def test_it_is_drawn_as_wide_and_tall_as_the_console_is(self) -> None:
        console = Console(record=True, width=66, height=20, file=io.StringIO())
        console.print(Page(seen, lambda: 1000.6))
        shown = console.export_text()
        assert shown.splitlines() == drawn(seen(), 66, 20).splitlines()


def certificate(watched: Watched) -> str:
    return next(one for one in drawn(watched).splitlines() if "certificate" in one)
