"""Numbers in words, and shapes of characters."""

import numpy as np
import pytest
from rich.cells import cell_len

from loadgen.watching.shapes import GLYPHS, bar, large
from loadgen.words import ago, legible, number, rate, size


class TestWords:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (None, "-"), (0.0, "0"), (2.5, "2.5"), (5007.0, "5,007"),
            (-0.00881234567, "-0.008812346"),
            (1234567.8, "1,234,568"), (1.7e308, "1.7e+308"), (5e-324, "4.940656e-324"),
        ],
    )  # fmt: skip
    def test_numbers(self, value: float | None, shown: str) -> None:
        assert number(value) == shown

    @pytest.mark.parametrize(
        ("count", "shown"),
        [
            (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (50_761, "50.8 kB"), (999_499, "999 kB"),
            (999_500, "1 MB"), (20_160_000, "20.2 MB"), (10**18, "1 EB"),
            (10**5 * 2**64, "1.84 YB"),
        ],
    )  # fmt: skip
    def test_sizes(self, count: int, shown: str) -> None:
        assert size(count) == shown

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (None, "never"), (0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"),
            (7200.0, "2 h"), (172_800.0, "2 d"),
        ],
    )  # fmt: skip
    def test_times(self, seconds: float | None, shown: str) -> None:
        assert ago(seconds) == shown

    def test_rates(self) -> None:
        assert [rate(one) for one in (None, 0.0, 0.25, 9.94, 9.95, 41_000.4)] == [
            "", "0 a second", "0.2 a second", "9.9 a second", "10 a second", "41,000 a second",
        ]  # fmt: skip

    def test_what_others_said_is_made_legible(self) -> None:
        assert legible("a\x1b[2J\nb\u202e") == "a [2J b "
        assert legible("x" * 301) == "x" * 296 + " ..."


class TestShapes:
    @pytest.mark.parametrize(
        ("share", "shown"),
        [
            (0.0, "────"), (1e-9, "╸───"), (0.125, "╸───"), (0.25, "━───"), (0.5, "━━──"),
            (0.99, "━━━━"), (1.0, "━━━━"), (7.0, "━━━━"), (-1.0, "────"),
        ],
    )  # fmt: skip
    def test_a_bar(self, share: float, shown: str) -> None:
        assert bar(share, 4, "blue").plain == shown

    def test_every_number_can_be_written_large(self, rng: np.random.Generator) -> None:
        for value in rng.normal(size=500) * 10.0 ** rng.integers(-320, 308, 500):
            rows = large(number(float(value)))
            assert len(rows) == 3
            assert len({cell_len(row) for row in rows}) == 1
        assert large("-1.0") == ["   ╶╮  ╭─╮", "╶─╴ │  │ │", "   ╶┴╴.╰─╯"]
        assert len(set(GLYPHS.values())) == len(GLYPHS)
