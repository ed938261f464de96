"""What counts as a value, and how the first thing that does not is named."""

import math
import pickle
from array import array
from collections import deque
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.values import EXACT_MAX, BadValue, as_values

GOOD = [
    (3, [3.0]),
    (2.5, [2.5]),
    (np.float32(0.5), [0.5]),
    (np.int8(-3), [-3.0]),
    ([], []),
    ([1, 2.5], [1.0, 2.5]),
    ((1, 2), [1.0, 2.0]),
    (range(3), [0.0, 1.0, 2.0]),
    (deque([1, 2.5]), [1.0, 2.5]),
    (array("d", [1.5]), [1.5]),
    (array("h", [-7]), [-7.0]),
    (memoryview(array("d", [-7.5])), [-7.5]),
    (np.array([], dtype="m8[s]"), []),
    (np.array(4.0), [4.0]),
    (np.array([1, 2], dtype=np.uint8), [1.0, 2.0]),
    (np.array([1.5], dtype=">f8"), [1.5]),
    (np.array([1.5], dtype=np.longdouble), [1.5]),
    (np.array([1, 2.5, np.int16(3)], dtype=object), [1.0, 2.5, 3.0]),
    (np.arange(6.0)[::2], [0.0, 2.0, 4.0]),
    (np.ma.array([1.0, 2.0], mask=[False, False]), [1.0, 2.0]),
    ([EXACT_MAX, -EXACT_MAX, 1e300], [2.0**53, -(2.0**53), 1e300]),
    (np.array([2**53, -(2**53)]), [2.0**53, -(2.0**53)]),
    ([1.7e308, 5e-324, -0.0], [1.7e308, 5e-324, -0.0]),
]

BAD = [
    ([1, True], "not_a_number", 1, "value 1 is a boolean, not a number"),
    (True, "not_a_number", 0, "value 0 is a boolean"),
    (np.bool_(1), "not_a_number", 0, "value 0 is a boolean"),
    (np.array([True]), "not_a_number", 0, "value 0 is a boolean"),
    (np.array([1.5, np.True_], dtype=object), "not_a_number", 1, "value 1 is a boolean"),
    (deque([1, True]), "not_a_number", 1, "value 1 is a boolean"),
    ([1.0, "2"], "not_a_number", 1, "value 1 is text"),
    ("12", "not_a_number", 0, "value 0 is text"),
    (b"12", "not_a_number", 0, "value 0 is bytes"),
    (bytearray(b"12"), "not_a_number", 0, "value 0 is bytes"),
    (memoryview(b"12"), "not_a_number", 0, "value 0 is bytes"),
    ([1, bytearray(b"12")], "not_a_number", 1, "value 1 is bytes"),
    (np.array([b"12"]), "not_a_number", 0, "value 0 is bytes"),
    (np.str_("12"), "not_a_number", 0, "value 0 is text"),
    (np.array(["a"]), "not_a_number", 0, "value 0 is text"),
    (None, "not_a_number", 0, "value 0 is missing"),
    (int, "not_a_number", 0, "value 0 is type"),
    ([1, None], "not_a_number", 1, "value 1 is missing"),
    (np.ma.array([1.0, 2.0], mask=[False, True]), "not_a_number", 1, "value 1 is missing"),
    ({1.0}, "not_a_number", 0, "value 0 is set"),
    ({"a": 1}, "not_a_number", 0, "value 0 is dict"),
    ((one for one in [1.0]), "not_a_number", 0, "value 0 is generator"),
    ([[1], [2, 3]], "not_a_number", 0, "value 0 is list"),
    ([1 + 2j], "not_a_number", 0, "value 0 is complex"),
    (np.array([1 + 2j]), "not_a_number", 0, "value 0 is complex"),
    ([Decimal(1)], "not_a_number", 0, "value 0 is Decimal"),
    ([Fraction(1)], "not_a_number", 0, "value 0 is Fraction"),
    (np.array(["2020-01-01"], dtype="M8[D]"), "not_a_number", 0, "value 0 is a date"),
    (np.array(["2020-01-01"], dtype="M8[ns]"), "not_a_number", 0, "value 0 is a date"),
    (np.array([5], dtype="m8[ns]"), "not_a_number", 0, "value 0 is a duration"),
    (np.timedelta64(5, "ns"), "not_a_number", 0, "value 0 is a duration"),
    ([1.0, np.timedelta64(5, "D")], "not_a_number", 1, "value 1 is a duration"),
    (np.zeros(2, dtype="i4,f8"), "not_a_number", 0, "value 0 is void"),
    (float("nan"), "not_finite", 0, "value 0 is NaN"),
    ([1, 2, float("nan"), True], "not_finite", 2, "value 2 is NaN"),
    ([float("-inf")], "not_finite", 0, "value 0 is infinite"),
    (np.array([1, np.inf, np.nan]), "not_finite", 1, "value 1 is infinite"),
    (np.array([1, np.nan], dtype=np.float16), "not_finite", 1, "value 1 is NaN"),
    (2**53 + 1, "not_exact", 0, "value 0 is an integer beyond 2"),
    ([1.5, 2**53 + 1], "not_exact", 1, "value 1 is an integer beyond 2"),
    ([1, 2**64], "not_exact", 1, "value 1 is an integer beyond 2"),
    ([1, -(10**400)], "not_exact", 1, "value 1 is an integer beyond 2"),
    (np.array([0, 2**53 + 1]), "not_exact", 1, "value 1 is an integer beyond 2"),
    (np.array([-(2**63)]), "not_exact", 0, "value 0 is an integer beyond 2"),
    (np.array([2**64 - 1], dtype=np.uint64), "not_exact", 0, "value 0 is an integer beyond 2"),
    (np.zeros((2, 3)), "not_one_dimensional", None, "values come in one dimension, not 2 x 3"),
    ([[1, 2], [3, 4]], "not_a_number", 0, "value 0 is list"),
    (((1, 2), (3, 4)), "not_a_number", 0, "value 0 is tuple"),
    ((np.zeros((2, 3)), np.zeros((2, 4))), "not_a_number", 0, "value 0 is ndarray"),
    (np.ma.array([[1.0, 2.0]]), "not_a_number", 0, "value 0 is list"),
    (np.ma.array(np.array([5], "m8[ns]")), "not_a_number", 0, "value 0 is a duration"),
    (np.ma.array([1, None], dtype=object, mask=[True, False]), "not_a_number", 0, "is missing"),
    (np.ma.masked, "not_a_number", 0, "value 0 is missing"),
    (np.array([0x7FA00000], "u4").view("f4"), "not_finite", 0, "value 0 is NaN"),
    (np.array([0x7FA00000], "u4").view("f4")[0], "not_finite", 0, "value 0 is NaN"),
]


@pytest.mark.parametrize(("given", "expected"), GOOD)
def test_numbers_of_every_kind_are_values(given: object, expected: list[float]) -> None:
    values = as_values(given)
    assert values.dtype == np.float64
    assert values.flags.c_contiguous
    assert values.tolist() == expected


@pytest.mark.parametrize(("given", "code", "position", "message"), BAD)
def test_the_first_bad_position_is_named(
    given: object, code: str, position: int | None, message: str
) -> None:
    with pytest.raises(BadValue) as refused:
        as_values(given)
    assert (refused.value.code, refused.value.position) == (code, position)
    assert message in str(refused.value)


def test_a_refusal_moves_with_the_batch_it_was_found_in() -> None:
    with pytest.raises(BadValue) as refused:
        as_values([1, True])
    moved = refused.value.moved(40)
    assert (moved.code, moved.position) == ("not_a_number", 41)
    assert str(moved) == "value 41 is a boolean, not a number"
    assert str(moved.moved(1)) == "value 42 is a boolean, not a number"
    assert str(refused.value) == "value 1 is a boolean, not a number"


def test_a_refusal_of_the_whole_batch_has_no_place_to_move() -> None:
    with pytest.raises(BadValue) as refused:
        as_values(np.zeros((2, 3)))
    moved = refused.value.moved(40)
    assert (moved.code, moved.position) == ("not_one_dimensional", None)
    assert str(moved) == str(refused.value)


def test_a_refusal_survives_being_sent_to_another_process() -> None:
    there = pickle.loads(pickle.dumps(BadValue("not_finite", "is NaN", 3)))  # noqa: S301  our own
    assert (there.code, there.position, str(there)) == ("not_finite", 3, "value 3 is NaN")


def test_an_integer_too_long_to_print_is_refused_all_the_same() -> None:
    with pytest.raises(BadValue, match=r"value 1 is an integer beyond 2\*\*53"):
        as_values([1, 10**5000])


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="no wider floats")
@pytest.mark.parametrize("number", ["1e400", "1.00000000000000000011", "1e-400"])
def test_a_long_double_that_no_float64_holds_is_refused(number: str) -> None:
    for numbers in (np.array(["1", number], dtype=np.longdouble), [1.0, np.longdouble(number)]):
        with pytest.raises(BadValue, match="value 1 is not exact as a float64"):
            as_values(numbers)


def test_an_integer_counts_for_what_it_is_not_for_what_it_says() -> None:
    class Liar(int):
        def __float__(self) -> float:
            return math.nan

    assert as_values([Liar(5)]).tolist() == [5.0]


def test_what_a_mask_hides_does_not_count_wherever_it_comes_from() -> None:
    class Column:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.ma.array([1.0, 2.0], mask=[False, True])

    with pytest.raises(BadValue, match="value 1 is missing"):
        as_values(Column())


def test_points_to_compare_with_may_be_infinite_and_nothing_else_changes() -> None:
    for points in ([-math.inf, 1, math.inf], np.array([-math.inf, 1, math.inf])):
        assert as_values(points, infinite=True).tolist() == [-math.inf, 1.0, math.inf]
    for points in ([math.inf, math.nan], np.array([math.inf, math.nan]), [math.inf, True]):
        with pytest.raises(BadValue, match="value 1 is"):
            as_values(points, infinite=True)
    assert as_values(np.array([np.inf], dtype=np.float16), infinite=True).tolist() == [math.inf]


NUMBERS = st.one_of(
    st.floats(), st.integers(-(2**54), 2**54), st.booleans(), st.integers(), st.none(), st.text()
)


@given(st.lists(NUMBERS, max_size=20))
def test_lists_arrays_and_single_values_obey_the_same_rules(numbers: list[object]) -> None:
    def outcome(given: object) -> object:
        try:
            return as_values(given).tolist()
        except BadValue as refused:
            return refused.code, refused.position, str(refused)

    singly: object = []
    for position, number in enumerate(numbers):
        one = outcome(number)
        if isinstance(one, tuple):
            code, _, message = one
            singly = (code, position, message.replace("value 0", f"value {position}"))
            break
        assert isinstance(one, list)
        assert isinstance(singly, list)
        singly = singly + one
    assert outcome(numbers) == singly
    assert outcome(np.array(numbers, dtype=object)) == singly
