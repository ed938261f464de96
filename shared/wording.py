"""How to say it: the form and the segments that cost the fewest bytes for the room they make.

A delta costs its segments and what every request costs. What it buys is room: the ranks that the
source may move until it has to speak again, the allowance less the shift that stays. A rough
picture is short and soon outdated, so a few tolerances are tried, and what counts is

    cost  =  (OVERHEAD + SEGMENT * segments) / (1 - shift / allowance)

Two things come first, because they need no drawing. While a source is young, so that its digest and
its picture are both exact, a few new values travel as they are: that keeps all the room there is,
and is what any lossless protocol would have to send. And `same`, where the picture scaled to the
new count still leaves a fifth of the room. Segments that are added leave the old ones as they are,
so what was off stays off; only a whole mends that. It is drawn where adding costs more than to say
all that the picture has.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from shared.clusters import Clusters
from shared.drawing import COARSENESS
from shared.picture import NO_SEGMENTS, Picture, Segments
from shared.protocol import SEGMENTS_MAX, Form
from shared.rank_shift import gained_exactly, more, rank_shift, whole

OVERHEAD, SEGMENT = 280, 5  # bytes: of a request with its headers, of a segment on average

# Of the allowance. Share of the raw bytes, 8 workers and a million values: identical workers, sine
# and sorted at epsilon 1 % | the same at 5 %, by `python -m benchmarks.communication constants`.
#   TOLERANCES   0.1 alone                 8.04  14.47  4.20 | 1.85  3.51  2.53
#                0.2 alone                 4.08   5.78  3.79 | 1.18  1.96  2.07
#                0.4 alone                 3.37   4.56  3.56 | 1.14  2.00  2.20
#                0.1, 0.2, 0.3, 0.4        3.27   4.30  3.59 | 1.14  1.87  2.06
#                0.15, 0.3, 0.45, 0.6      3.19   4.13  3.57 | 1.14  1.87  2.07
#   SAME         0.5                       3.61   4.30  3.59 | 1.15  1.87  2.06
#                0.65                      3.27   4.30  3.59 | 1.14  1.87  2.06
#                0.8                       3.17   4.30  3.59 | 1.14  1.87  2.06
# A first whole must stay below half, see `Outbox`; so 0.4 is the first.
TOLERANCES = (0.4, 0.3, 0.2, 0.1)
SAME = 0.8

# New values that travel as they are. With 8 in place of 32, twenty sources of a thousand single
# values said a tenth less at epsilon 5 %, and took three times as long at 1 %; measured once.
FEW = 32
KNOTS_MAX = 1000  # of a picture that segments are added to


class Offer(NamedTuple):
    cost: float
    form: Form
    segments: Segments


def worded(
    clusters: Clusters, picture: Picture, shift: float, allowance: float
) -> tuple[Form, Segments]:
    """What makes this picture, which was off by `shift`, one of the clusters."""
    gained, short = clusters.count - picture.weight, 0 < len(picture) < KNOTS_MAX
    if short and 0 < gained <= FEW and not shift and not clusters.widest:
        return Form.MORE, gained_exactly(clusters, picture)
    if len(picture) and rank_shift(clusters, picture.scaled(clusters.count)) <= SAME * allowance:
        return Form.SAME, NO_SEGMENTS
    offers = _added(clusters, picture, shift, allowance) if short and gained else []
    if not offers or offers[-1].cost > _cost(len(picture), TOLERANCES[-1]):
        offers += _offers(
            Form.WHOLE, lambda ranks: whole(clusters, ranks, SEGMENTS_MAX), TOLERANCES, allowance
        )
    best = min(offers, key=lambda offer: offer.cost)
    return best.form, best.segments


def _added(clusters: Clusters, picture: Picture, shift: float, allowance: float) -> list[Offer]:
    """To be as good as it was can take all new values; to be much better is not in its power."""
    as_it_was = (shift + 0.5) / (1 - 2 * COARSENESS) / max(allowance, 1)
    tolerances = [one for one in (*TOLERANCES, as_it_was) if 0.6 * as_it_was < one < 1]
    tolerances.sort(reverse=True)
    return _offers(Form.MORE, lambda ranks: more(clusters, picture, ranks), tolerances, allowance)


def _offers(
    form: Form,
    draw: Callable[[float], Segments | None],
    tolerances: Iterable[float],
    allowance: float,
) -> list[Offer]:
    """From the roughest on, as long as each is cheaper than the one before."""
    offers: list[Offer] = []
    for tolerance in tolerances:
        segments = draw(tolerance * allowance)
        if segments is None:
            break
        offer = Offer(_cost(len(segments), tolerance), form, segments)
        if offers and offer.cost >= offers[-1].cost:
            break
        offers.append(offer)
    return offers


def _cost(segments: int, tolerance: float) -> float:
    return (OVERHEAD + SEGMENT * segments) / (1 - tolerance)
