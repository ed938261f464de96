"""A problem in a file, and its medians: `shared.tracker.simulate` behind a command.

    {"N": 2, "epsilon": 0.01, "data_streams": [[3, 1, 2], [10, 20]], "queries": [1, 2, 5]}

This is the one command that needs no service: all happens in this process, without a network. It
checks what only JSON can get wrong. What a problem may hold is for `simulate` to say, and what that
says goes on to the user as it is.

Python's parser is more liberal than JSON. It takes NaN, makes infinity of 1e999, and of a key that
comes twice it keeps the last: here all three are refused.
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, NoReturn

from rich.console import Console

from shared.tracker import simulate

STANDARD_INPUT = "-"
NEEDED = ("N", "epsilon", "data_streams", "queries")
KNOWN = (*NEEDED, "arrival")
DIGITS_MAX = 300  # a longer integer is no float64, and of thousands of digits Python makes no int
SENTENCE_MAX = 300  # characters: what is wrong may be a megabyte of text, and would be quoted
PATIENT_S = 1.0  # who waits for longer is told that something happens

# What stands in a JSON text: strings, to be passed over, and numbers, cut as the parser cuts them.
TOKENS = re.compile(
    r'"(?:[^"\\]|\\.)*"|NaN|-?Infinity|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?',
    re.DOTALL,
)


class BadProblem(ValueError):
    """What is wrong with a problem, in a sentence."""


class _BadNumber(ValueError):
    """A number that JSON can write and nobody can use; where it stands must yet be found."""

    def __init__(self, literal: str, what: str) -> None:
        super().__init__(literal, what)
        self.literal, self.what = literal, what

    def placed(self, text: str) -> BadProblem:
        """All that look like it are as bad, so the first that does is the one."""
        at = next(one.start() for one in TOKENS.finditer(text) if one[0] == self.literal)
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        return BadProblem(f"line {line}, column {column}: {_short(self.literal, 40)} {self.what}")


def medians(text: str) -> list[float]:
    """Of a problem, as JSON; `BadProblem` says what is wrong with it."""
    try:
        return simulate(**_problem(text))
    except BadProblem:
        raise
    except _BadNumber as error:
        raise error.placed(text) from None
    except json.JSONDecodeError as error:
        what = f"{error.msg[0].lower()}{error.msg[1:]}"
        where = f"line {error.lineno}, column {error.colno}"
        raise BadProblem(f"{where}: this is not JSON: {what}") from None
    except RecursionError:
        raise BadProblem("it is nested too deep: a problem is an object of lists") from None
    except ValueError as error:
        raise BadProblem(str(error)) from None


def _problem(text: str) -> dict[str, Any]:
    given = json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_constant,
        parse_float=_float,
        parse_int=_whole,
    )
    if not isinstance(given, dict):
        raise BadProblem(f"a problem is an object with the keys {_listed(NEEDED)}")
    for key in given:
        if key not in KNOWN:
            raise BadProblem(f"there is no key {key!r} here: known are {_listed(KNOWN)}")
    if missing := [key for key in NEEDED if key not in given]:
        raise BadProblem(f"it lacks {_listed(missing)}: a problem has {_listed(NEEDED)}")
    return given


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise BadProblem(f"the key {twice!r} is given more than once: say which one is meant")
    return made


def _constant(literal: str) -> NoReturn:
    raise _BadNumber(literal, "is neither JSON nor a value: values are finite")


def _float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise _BadNumber(literal, "is beyond the largest float64: values are finite")
    return value


def _whole(literal: str) -> int:
    if len(literal) > DIGITS_MAX:
        raise _BadNumber(literal, "is an integer beyond 2**53; to have it rounded, write a float")
    return int(literal)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def play(problem: str) -> int:
    """Print the medians as one line of JSON; returns the status to exit with.

    What is wrong is one sentence on standard error, and nothing is printed.
    """
    name = "standard input" if problem == STANDARD_INPUT else problem
    try:
        text = _text(problem)
        with _patience(Console(stderr=True)):
            found = medians(text)
    except BadProblem as error:
        sentence = _short(f"{error}", SENTENCE_MAX)
        sys.stderr.write(f"{name if name.isprintable() else ascii(name)}: {sentence}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(json.dumps(found, allow_nan=False) + "\n")
    sys.stdout.flush()
    return 0


def _text(problem: str) -> str:
    try:
        return _bytes(problem).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadProblem(f"byte {error.start} is not UTF-8: save it as UTF-8") from None
    except (OSError, ValueError) as error:  # a path with a null in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise BadProblem(f"it cannot be read: {why}") from None


def _bytes(problem: str) -> bytes:
    if problem != STANDARD_INPUT:
        return Path(problem).read_bytes()
    if sys.stdin is None:
        raise OSError("it is closed")
    return sys.stdin.buffer.read()


@contextmanager
def _patience(console: Console, after_s: float = PATIENT_S) -> Iterator[None]:
    """Somebody who watches a terminal sees, after a while, that this still works."""
    status = console.status("Simulating. Ctrl-C stops it.")
    timer = Timer(after_s, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may just be starting
        status.stop()
