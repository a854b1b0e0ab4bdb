"""What is to be fetched, in which pieces, and by how many connections: the decisions alone."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_client import errors
from dataset_client.contents import Wanted
from dataset_client.eviction import Entry, choose
from dataset_client.plan import Piece, Target, make_plan, require_space
from dataset_client.spans import Spans

SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60))


@given(st.lists(SPAN), st.lists(SPAN), SPAN)
def test_spans_are_sets_of_bytes(added, removed, asked):
    spans, bytes_ = Spans(), set()
    for start, stop in added:
        spans.add(start, stop)
        bytes_ |= {*range(start, stop)}
    for start, stop in removed:
        if start < stop:
            spans.remove(start, stop)
            bytes_ -= {*range(start, stop)}
    found = list(spans)
    assert {offset for start, stop in found for offset in range(start, stop)} == bytes_
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found)) or removed
    assert spans.total == len(bytes_)
    start, stop = asked
    missing = spans.missing(start, stop)
    assert {offset for a, b in missing for offset in range(a, b)} == {*range(start, stop)} - bytes_
    assert {*range(start, spans.end_of(start))} <= bytes_ or spans.end_of(start) == start


def wanted(name, size, at):
    return Wanted(name, size, "ab" * 32, 0, at)


#: Three files with headers between, the last of them small.
FILES = (wanted("a", 100, 10), wanted("b", 50, 120), wanted("c", 5, 180))
ALL = {"a": [(0, 100)], "b": [(0, 50)], "c": [(0, 5)]}


@pytest.mark.parametrize(
    ("missing", "known_from", "piece", "fetch"),
    [
        (ALL, 999, 1000, [(10, 185)]),
        (ALL, 999, 100, [(10, 110), (120, 185)]),
        (ALL, 999, 40, [(10, 50), (50, 90), (90, 110), (120, 160), (160, 185)]),
        (ALL | {"a": []}, 999, 1000, [(120, 185)]),
        (ALL | {"a": [(20, 30), (90, 100)]}, 999, 1000, [(30, 185)]),
        (ALL | {"a": [(20, 30), (90, 100)]}, 999, 60, [(30, 40), (100, 110), (120, 170), (180, 185)]),
        (ALL, 150, 1000, [(10, 150)]),
        ({"a": [], "b": [], "c": []}, 999, 1000, []),
    ],
)
def test_pieces(missing, known_from, piece, fetch):
    plan = make_plan(FILES, missing, {})
    known, asked = plan.pieces(known_from=known_from, piece_bytes=piece)
    assert [(one.start, one.stop) for one in asked] == fetch
    assert plan.missing == sum(stop - start for spans in missing.values() for start, stop in spans)
    written = {(target.file, target.offset + n) for one in (*asked, *known) for target in one.targets
               for n in range(target.size)}  # fmt: skip
    assert written == {
        (name, n) for name, spans in missing.items() for start, stop in spans for n in range(start, stop)
    }
    assert all(one.start >= known_from for one in known)
    assert all(one.stop - one.start <= piece for one in (*asked, *known))


def test_what_is_elsewhere_in_the_cache_is_taken_and_not_fetched():
    plan = make_plan(FILES, ALL | {"b": []}, {"a": Path("x/a"), "b": Path("x/b")})
    assert plan.take == {"a": Path("x/a")}
    assert [(file.file, spans) for file, spans in plan.fetch] == [("c", [(0, 5)])]


def test_the_rest_of_a_piece():
    piece = Piece(10, 170, (Target(10, 100, "a", 0), Target(120, 50, "b", 0)))
    assert piece.rest(10) == piece
    assert piece.rest(50) == Piece(50, 170, (Target(50, 60, "a", 40), Target(120, 50, "b", 0)))
    assert piece.rest(115) == Piece(120, 170, (Target(120, 50, "b", 0),))
    assert piece.rest(130) == Piece(130, 170, (Target(130, 40, "b", 10),))
    assert piece.rest(170) is None


def test_a_disk_that_is_too_small():
    require_space("d", missing=100, free=100)
    with pytest.raises(errors.CacheError, match="needs 3.00 GB more.*2.00 GB free.*1.00 GB are missing") as caught:
        require_space("d", missing=3 * 10**9, free=2 * 10**9)
    assert caught.value.code == "disk_full"


def test_a_piece_is_cut_where_it_is_said():
    piece = Piece(0, 30, (Target(0, 10, "a", 5), Target(12, 18, "b", 0)))
    assert piece.head(20) == Piece(0, 20, (Target(0, 10, "a", 5), Target(12, 8, "b", 0)))
    assert piece.rest(20) == Piece(20, 30, (Target(20, 10, "b", 8),))
    assert piece.head(11) == Piece(0, 11, (Target(0, 10, "a", 5),))
    assert piece.rest(11) == Piece(12, 30, (Target(12, 18, "b", 0),))


def entry(name, size, used, *, in_use=False, superseded=False):
    return Entry("d", "0", Path(name), size, used, in_use, superseded)


ENTRIES = [
    entry("new", 10, 5.0),
    entry("old", 10, 1.0),
    entry("open", 10, 0.0, in_use=True),
    entry("replaced", 10, 9.0, superseded=True),
    entry("replaced-open", 10, 0.0, superseded=True, in_use=True),
]


@pytest.mark.parametrize(
    ("size", "only", "chosen"),
    [
        (0, False, []),
        (-5, False, []),
        (1, False, ["replaced"]),
        (11, False, ["replaced", "old"]),
        (99, False, ["replaced", "old", "new"]),
        (99, True, ["replaced"]),
    ],
)
def test_who_makes_room(size, only, chosen):
    assert [str(one.path) for one in choose(ENTRIES, size, superseded_only=only)] == chosen
