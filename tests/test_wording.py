"""Which form is chosen, and that the picture it makes is as good as the digest allows."""

import numpy as np
import pytest

from shared.clusters import Clusters
from shared.digest import Digest
from shared.picture import NOTHING, Picture, Segments
from shared.protocol import (
    NO_MARK,
    SEGMENTS_MAX,
    Cause,
    Delta,
    Form,
    Source,
    pack_delta,
    unpack_delta,
)
from shared.rank_shift import more, rank_shift, whole
from shared.values import Floats
from shared.wording import FEW, KNOTS_MAX, SAME, worded
from tests.streams import STREAMS

EPSILON = 0.05


def clusters_of(values: Floats) -> Clusters:
    digest = Digest(EPSILON / 20)
    digest.add(values)
    return digest.clusters


def said(clusters: Clusters, picture: Picture, form: Form, segments: Segments) -> Picture:
    """What becomes of the picture on the other side."""
    delta = Delta(
        source=Source("w", "s", 1), base=NO_MARK, form=form, segments=segments,
        since=0 if form is Form.WHOLE else int(picture.weight), upto=clusters.count,
        shift=0.0, digest_error=0.001, ledger=1, cause=Cause.SHIFT,
    )  # fmt: skip
    return unpack_delta(pack_delta(delta)).drawn_on(picture)


@pytest.mark.parametrize("name", STREAMS)
def test_whatever_is_said_leaves_room_to_move(name: str, rng: np.random.Generator) -> None:
    """Less than the allowance is used up: by the tolerance tried most, and by what is rounded."""
    values, picture, shift, forms = STREAMS[name](20_000, rng), NOTHING, 0.0, []
    count = 1
    while count < len(values):
        clusters = clusters_of(values[:count])
        allowance = 0.6 * EPSILON * count
        form, segments = worded(clusters, picture, shift, allowance)
        picture = said(clusters, picture, form, segments)
        shift = rank_shift(clusters, picture)
        forms.append(form)
        assert picture.weight == count
        assert shift <= max(0.9 * allowance, clusters.widest) + 1.1
        count += max(1, count // 4)
    assert forms[:10] == [Form.WHOLE, *[Form.MORE] * 9]


CALM = np.random.default_rng(1).normal(size=8_000)


def test_first_of_all_a_picture_is_drawn_whole() -> None:
    form, segments = worded(clusters_of(CALM), NOTHING, 0.0, 100.0)
    assert form is Form.WHOLE
    assert len(segments) <= 36
    assert 15 < rank_shift(clusters_of(CALM), segments.picture) <= 62


def test_where_scaling_leaves_enough_room_the_same_is_said() -> None:
    half, all_ = clusters_of(CALM[:4_000]), clusters_of(CALM)
    picture = whole(half, 20.0, SEGMENTS_MAX).picture
    least = rank_shift(all_, picture.scaled(8_000)) / SAME
    form, segments = worded(all_, picture, 20.0, least * 1.001)
    assert (form, len(segments)) == (Form.SAME, 0)
    assert worded(all_, picture, 20.0, least * 0.999)[0] is not Form.SAME


def exact(values: Floats) -> Picture:
    return whole(clusters_of(values), 0.0, SEGMENTS_MAX).picture


def test_while_all_is_exact_a_few_new_values_travel_as_they_are() -> None:
    old = np.arange(50.0)
    picture = exact(old)
    for new in (1, FEW):
        clusters = clusters_of(np.append(old, np.full(new, 0.5)))
        form, segments = worded(clusters, picture, 0.0, 1_000.0)
        assert (form, len(segments)) == (Form.MORE, 1)
        assert rank_shift(clusters, said(clusters, picture, form, segments)) == 0
        assert worded(clusters, picture, 1 / 16, 1_000.0)[0] is Form.SAME
    many = clusters_of(np.append(old, np.full(FEW + 1, 0.5)))
    assert worded(many, picture, 0.0, 1_000.0)[0] is Form.SAME
    assert worded(clusters_of(old), picture, 0.0, 0.0)[0] is Form.SAME


def test_of_a_sorted_stream_what_is_new_is_added() -> None:
    values = np.arange(8_000.0)
    picture = whole(clusters_of(values[:6_000]), 20.0, SEGMENTS_MAX).picture
    clusters = clusters_of(values)
    form, segments = worded(clusters, picture, 20.0, 200.0)
    assert form is Form.MORE
    assert 1 <= len(segments) <= 2
    assert rank_shift(clusters, said(clusters, picture, form, segments)) <= 121


def test_where_nothing_can_be_added_all_is_said_anew() -> None:
    values = np.arange(1_000.0)
    clusters = clusters_of(values)
    wrong = Segments(np.array([0.0, 0.0]), np.array([900.0])).picture
    assert more(clusters, wrong, 100.0) is None
    form, segments = worded(clusters, wrong, 900.0, 100.0)
    assert form is Form.WHOLE
    assert rank_shift(clusters, segments.picture) <= 100


def test_with_nothing_new_a_worse_picture_is_mended_by_a_whole() -> None:
    clusters = clusters_of(CALM)
    rough = whole(clusters, 400.0, SEGMENTS_MAX).picture
    form, segments = worded(clusters, rough, 400.0, 100.0)
    assert form is Form.WHOLE
    assert rank_shift(clusters, segments.picture) <= 61


def test_where_adding_is_dear_all_is_said_anew() -> None:
    """A rough picture, and new values all over it: what is off cannot be mended by adding."""
    moved = np.concatenate((CALM[:4_000], CALM[:4_000] * 3 + 1))
    clusters, old = clusters_of(moved), clusters_of(moved[:4_000])
    picture = whole(old, 55.0, SEGMENTS_MAX).picture
    form, segments = worded(clusters, picture, rank_shift(old, picture), 70.0)
    assert form is Form.WHOLE
    assert rank_shift(clusters, segments.picture) <= 43


def test_to_a_picture_of_too_many_knots_nothing_is_added() -> None:
    for knots, form in ((KNOTS_MAX - 1, Form.MORE), (KNOTS_MAX, Form.WHOLE)):
        values = np.repeat(np.arange(float(knots)), 2)
        digest = Digest(0.0001)
        digest.add(values)
        picture = whole(digest.clusters, 0.0, SEGMENTS_MAX).picture
        assert len(picture) == knots
        digest.add(np.full(FEW, 0.5))
        assert worded(digest.clusters, picture, 0.0, 2.0)[0] is form
        digest.add(np.full(100, 1e6))
        assert worded(digest.clusters, picture, 0.0, 20.0)[0] is form
