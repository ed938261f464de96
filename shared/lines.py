"""Straight lines between float64 numbers: how far along x is, and what is so far along.

Whatever the numbers - 1e-300 beside 1e300, the largest float64 on either side of zero, equal ends -
nothing overflows into an answer, and nothing ever falls where it should rise.
"""

import numpy as np

from shared.values import Floats

# What overflows is looked at afterwards, whatever the caller's own settings say of it.
quietly = np.errstate(all="ignore")


@quietly
def share(x: Floats, left: Floats, right: Floats) -> Floats:
    """How much of the way from left to right is done at x: 0 to 1, never less for a larger x."""
    width, way = right - left, x - left
    wide = ~np.isfinite(width)
    if wide.any():  # halves, but only there: half of the smallest float64 is nothing
        width = np.where(wide, right / 2 - left / 2, width)
        way = np.where(wide, x / 2 - left / 2, way)
    share = np.divide(way, width, out=np.zeros_like(way), where=width > 0)
    return np.minimum(np.maximum(share, 0), 1)


@quietly
def between(left: Floats, right: Floats, share: Floats) -> Floats:
    """The value that much of the way: within [left, right], never less for a larger share.

    Rounding keeps the order in both forms, and neither overflows where it is used: the first adds
    two terms that both rise with the share, the second has a difference of like signs.
    """
    apart = left * (1 - share) + right * share
    near = left + (right - left) * share
    inside = np.clip(np.where((left < 0) & (right > 0), apart, near), left, right)
    return np.where(share < 1, inside, right)


@quietly
def midpoint(left: Floats, right: Floats) -> Floats:
    plain = (left + right) / 2
    return np.where(np.isfinite(plain), plain, left / 2 + right / 2)
