"""Lines, where there is no terminal."""

from dataclasses import replace

from loadgen.watching.lines import HEAD, Lines, line
from tests.watching import ANSWER, seen


class TestLines:
    def test_a_line_is_columns_under_their_heads(self) -> None:
        shown = line(ANSWER, 1767225600.9)
        assert shown.split() == [
            "2026-01-01T00:00:00Z", "-2.3290123", "-2.341234", "-2.31471", "2360000", "0.0071000",
            "4", "0", "yes",
        ]  # fmt: skip
        assert len(HEAD.split()) == len(shown.split())
        for head, text in zip(HEAD.split()[1:-1], shown.split()[1:-1], strict=True):
            assert HEAD.index(f" {head}") + len(head) == shown.index(f" {text} ") + len(text)

    def test_a_dash_is_nothing(self) -> None:
        nothing = replace(ANSWER, median=None, low=None, high=None, complete=False)
        assert line(nothing, 0.0).split()[1:4] == ["-", "-", "-"]
        assert line(nothing, 0.0).endswith(" no")

    def test_the_head_comes_once_and_trouble_when_it_is_new(self) -> None:
        said: list[str] = []
        lines = Lines(said.append, lambda: 0.0)
        away, other = seen().failed("away"), seen().failed("other")
        for one in (away, away, seen(), seen(), away, away, other, seen(), away):
            lines(one)
        kinds = [one.split()[2] if one[0] == "#" else one.split()[0] for one in said]
        at = "1970-01-01T00:00:00Z"
        assert kinds == ["away;", "time", at, at, "away;", "other;", at, "away;"]
