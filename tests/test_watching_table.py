"""The table of sources: who comes first, and who and what is left out."""

import pytest
from rich.cells import cell_len

from loadgen.watching.page import page
from tests.watching import drawn, seen, source


class TestTheTable:
    def test_the_silent_come_first_and_then_the_largest(self) -> None:
        rows = [
            source(1, count=5, state="gone"),
            source(2, count=7),
            source(3, count=9),
            source(4, count=1, state="silent", last_heard_s=None),
        ]
        shown = drawn(seen(*rows))
        places = [shown.index(f"worker-{at}") for at in (4, 3, 2, 1)]
        assert places == sorted(places)
        assert "never" in shown

    def test_the_longest_bar_is_the_largest_share(self) -> None:
        shown = drawn(seen(source(1, count=800), source(2, count=400), source(3, count=0)), 120)
        bars = [row.count("━") for row in shown.splitlines() if "worker-" in row]
        assert bars == [24, 12, 0]
        assert "66.7 %" in shown

    def test_those_without_room_are_counted(self) -> None:
        rows = [source(at) for at in range(40)] + [source(99, state="gone", count=1)]
        shown = drawn(seen(*rows), 80, 30)
        there = sum("worker-" in row for row in shown.splitlines())
        assert there > 5
        assert f"... and {41 - there} more: {40 - there} live, 1 gone" in shown
        assert len(shown.splitlines()) == 30

    @pytest.mark.parametrize("height", range(12, 40))
    def test_every_one_is_there_or_counted(self, height: int) -> None:
        shown = drawn(seen(*map(source, range(12))), 80, height)
        there = sum("worker-" in row for row in shown.splitlines())
        more = [row for row in shown.splitlines() if "more:" in row]
        assert there == 12 or f"and {12 - there} more: {12 - there} live" in more[0]
        assert len(more) <= 1

    @pytest.mark.parametrize(
        ("width", "shown", "hidden"),
        [
            (44, ["worker", "state", "share", "heard"], ["patience", "allowance"]),
            (66, ["sent", "patience"], ["allowance"]),
            (120, ["sent", "patience", "values", "allowance", "deltas"], []),
        ],
    )
    def test_a_wider_one_says_more(self, width: int, shown: list[str], hidden: list[str]) -> None:
        head = next(one for one in drawn(seen(), width).splitlines() if "heard" in one)
        assert all(one in head for one in shown)
        assert not any(one in head for one in hidden)

    def test_its_columns_stand_below_their_heads(self) -> None:
        wide = [source(1, worker="工作者"), source(2, worker="a"), source(3, worker="x" * 60)]
        for width in (60, 80, 120):
            lines = [one.plain for one in page(seen(*wide), width, 40, 1000.6)]
            table = lines[next(at for at, one in enumerate(lines) if "heard" in one) :]
            assert len({cell_len(one) for one in table}) == 1
            assert len({cell_len(one.partition("live")[0]) for one in table[1:]}) == 1
        assert f"{'x' * 19}…" in drawn(seen(*wide), 84)
