"""What a value is, decided in one place: one finite float64, and the number its sender meant.

Rules for this file:

* All or nothing. A batch comes back whole as float64, or `BadValue` names its first bad position,
  counted from zero.
* Nothing is rounded behind anyone's back. A float64 holds every integer up to 2**53 and not the
  next one, so an integer beyond is refused. Whoever means the rounded number sends a float.
* A boolean is not a number. NumPy turns `[True, 2.5]` into `[1.0, 2.5]` without a word, so what is
  not yet an array is looked at element by element before it becomes one.
"""

import math
from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

EXACT_MAX = 2**53
BYTES = {"b", "B", "c"}  # formats of a memoryview that is text or packed numbers, not yet numbers
WORDS: dict[type, str] = {
    **dict.fromkeys((bool, np.bool_), "a boolean"),
    **dict.fromkeys((str, np.str_), "text"),
    **dict.fromkeys((bytes, np.bytes_, bytearray, memoryview), "bytes"),
    np.datetime64: "a date",
    np.timedelta64: "a duration",
    type(None): "missing",
}


class BadValue(ValueError):
    """What was given is not a value: `code` is for programs, the message for people."""

    def __init__(self, code: str, what: str, position: int | None = None) -> None:
        super().__init__(code, what, position)
        self.code = code
        self.what = what
        self.position = position

    def __str__(self) -> str:
        return self.what if self.position is None else f"value {self.position} {self.what}"

    def moved(self, by: int) -> "BadValue":
        """The same, where what was given stands behind `by` other values."""
        position = None if self.position is None else self.position + by
        return BadValue(self.code, self.what, position)


def as_values(given: object, *, infinite: bool = False) -> Floats:
    """A number or a one-dimensional array-like of numbers, as contiguous float64.

    With `infinite` these may be infinite: points to compare values with, not values.
    """
    if type(given) is np.ndarray:
        return _from_array(given, infinite)
    if isinstance(given, np.ma.MaskedArray):
        listed = given.dtype.kind in "iufO"  # where what is masked becomes None, and is refused
        return as_values(given.tolist() if listed else np.asarray(given), infinite=infinite)
    typed = isinstance(given, array) or (
        isinstance(given, memoryview) and given.format not in BYTES
    )
    if typed or hasattr(given, "__array__"):
        found = np.asanyarray(given)
        masked = isinstance(found, np.ma.MaskedArray)
        return as_values(found if masked else np.asarray(found), infinite=infinite)
    if isinstance(given, str | bytes | bytearray | memoryview) or not isinstance(given, Sequence):
        return _from_list([given], infinite)
    return _from_list(list(given), infinite)


def _from_array(numbers: NDArray[Any], infinite: bool) -> Floats:
    if numbers.ndim > 1:
        shape = " x ".join(map(str, numbers.shape))
        raise BadValue("not_one_dimensional", f"values come in one dimension, not {shape}")
    if numbers.dtype != np.float64 or numbers.ndim == 0:
        return _converted(np.atleast_1d(numbers), infinite)
    good = ~np.isnan(numbers) if infinite else np.isfinite(numbers)
    if not good.all():
        first = int(good.argmin())
        _as_value(numbers[first], first, infinite)
    return np.ascontiguousarray(numbers)


def _converted(numbers: NDArray[Any], infinite: bool) -> Floats:
    kind = numbers.dtype.kind
    if kind == "O" or not len(numbers):
        return _from_list(numbers.tolist(), infinite)
    if kind not in "iuf":
        raise _not_a_number(numbers.dtype.type, 0)
    with np.errstate(all="ignore"):
        values = numbers.astype(np.float64)
        if kind == "f":
            good = (values == numbers) & (infinite | np.isfinite(values))
        else:
            good = (numbers >= -EXACT_MAX) & (numbers <= EXACT_MAX)
    if not good.all():
        first = int(good.argmin())
        _as_value(numbers[first], first, infinite)
    return values


def _from_list(given: list[Any], infinite: bool) -> Floats:
    kinds = set(map(type, given))
    if kinds <= {float, int}:
        bound = EXACT_MAX if int in kinds else math.inf
        try:
            values = np.array(given, dtype=np.float64)
        except OverflowError:
            values = np.array([math.inf])
        if (abs(values) < bound).all():
            return values
    return np.array([_as_value(one, at, infinite) for at, one in enumerate(given)])


def _as_value(given: object, position: int, infinite: bool) -> float:
    """One value, with every rule: slow, so only for what the quick looks above did not clear."""
    if isinstance(given, float | np.floating):
        with np.errstate(all="ignore"):
            value = float(given)
            exact = value == given
        if math.isnan(value):
            raise BadValue("not_finite", "is NaN", position)
        if not exact:
            raise BadValue("not_exact", "is not exact as a float64", position)
        if math.isinf(value) and not infinite:
            raise BadValue("not_finite", "is infinite", position)
        return value
    if isinstance(given, int | np.integer) and not isinstance(given, bool | np.timedelta64):
        whole = int(given)
        if abs(whole) > EXACT_MAX:
            what = "is an integer beyond 2**53; to have it rounded, send a float"
            raise BadValue("not_exact", what, position)
        return float(whole)
    raise _not_a_number(type(given), position)


def _not_a_number(kind: type, position: int) -> BadValue:
    name = WORDS.get(kind, kind.__name__)
    return BadValue("not_a_number", f"is {name}, not a number", position)
