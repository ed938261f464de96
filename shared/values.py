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
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

EXACT_MAX = 2**53
WORDS = {bool: "a boolean", np.bool_: "a boolean", str: "text", type(None): "missing"}


class BadValue(ValueError):
    """What was given is not a value: `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.position = position


def as_values(given: object) -> Floats:
    """A number or a one-dimensional array-like of numbers, as contiguous float64."""
    if type(given) is np.ndarray:
        return _from_array(given)
    if type(given) is list:
        return _from_list(given)
    if isinstance(given, str | bytes | bytearray):
        return _from_list([given])
    if isinstance(given, np.ma.MaskedArray):
        return as_values(given.tolist())  # what is masked becomes None, and is refused
    typed = hasattr(given, "__array__") or isinstance(given, array | memoryview)
    return _from_array(np.asarray(given) if typed else np.asarray(given, dtype=object))


def _from_array(numbers: NDArray[Any]) -> Floats:
    if numbers.ndim > 1:
        shape = " x ".join(map(str, numbers.shape))
        raise BadValue("not_one_dimensional", f"values come in one dimension, not {shape}")
    if numbers.dtype != np.float64 or numbers.ndim == 0:
        return _converted(np.atleast_1d(numbers))
    finite = np.isfinite(numbers)
    if not finite.all():
        first = int(finite.argmin())
        _as_value(numbers[first], first)
    return np.ascontiguousarray(numbers)


def _converted(numbers: NDArray[Any]) -> Floats:
    if numbers.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a long double may be too large: infinite, and refused
            return _from_array(numbers.astype(np.float64))
    if numbers.dtype.kind not in "iu":
        return _from_list(numbers.tolist())
    exact = (numbers >= -EXACT_MAX) & (numbers <= EXACT_MAX)
    if not exact.all():
        first = int(exact.argmin())
        _as_value(numbers[first], first)
    return numbers.astype(np.float64)


def _from_list(given: list[object]) -> Floats:
    kinds = set(map(type, given))
    if kinds <= {float, int}:
        bound = EXACT_MAX if int in kinds else math.inf
        try:
            values = np.array(given, dtype=np.float64)
        except OverflowError:
            values = np.array([math.inf])
        if (abs(values) < bound).all():
            return values
    return np.array([_as_value(one, position) for position, one in enumerate(given)])


def _as_value(given: object, position: int) -> float:
    """One value, with every rule: slow, so only for what the quick looks above did not clear."""
    if isinstance(given, float | np.floating):
        value = float(given)
        if math.isfinite(value):
            return value
        what = "NaN" if math.isnan(value) else "infinite"
        raise BadValue("not_finite", f"value {position} is {what}", position)
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        if abs(int(given)) <= EXACT_MAX:
            return float(given)
        message = f"value {position} is an integer beyond 2**53; to have it rounded, send a float"
        raise BadValue("not_exact", message, position)
    name = WORDS.get(type(given), type(given).__name__)
    raise BadValue("not_a_number", f"value {position} is {name}, not a number", position)
