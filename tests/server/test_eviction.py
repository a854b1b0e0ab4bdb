"""What goes when room is needed, and how much room a build needs: the decisions."""

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_server.eviction import HALF_LIFE, Candidate, choose, may_go, reasons_to_stay, worth
from dataset_server.room import (
    FLOOR,
    PLAN_BYTES,
    Experience,
    Space,
    bytes_to_keep_free,
    expected_bytes,
    extrapolated,
    in_words,
    planned_samples,
    to_reserve,
)

NOW = 1_000_000.0
LEASE = 100.0


@st.composite
def candidates(draw):
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 1000),
                st.floats(0, 1e6),
                st.integers(0, 100),
                st.floats(NOW - 100 * HALF_LIFE, NOW + 1000),
                st.booleans(),
                st.booleans(),
            ),
            max_size=12,
        )
    )
    return [Candidate(f"d{number}", 1, *values) for number, values in enumerate(drawn)]


@given(candidates(), st.integers(1, 4000))
def test_enough_goes_or_nothing_and_never_what_is_needed(there, needed):
    chosen = choose(there, needed, NOW, LEASE)
    freed = sum(item.bytes for item in chosen)
    assert len({item.dataset_id for item in chosen}) == len(chosen)
    assert all(item in there for item in chosen)
    for item in chosen:
        assert not item.pinned
        assert not item.held
        assert NOW - item.last_used_at >= LEASE
        assert freed - item.bytes < needed, "one that could have stayed"
    possible = sum(item.bytes for item in there if may_go(item, NOW, LEASE))
    assert (freed >= needed) == (possible >= needed)
    assert chosen or possible < needed


@given(candidates(), st.integers(1, 4000))
def test_of_equal_size_the_least_worthy_go(there, needed):
    there = [Candidate(**{**vars(item), "bytes": 100}) for item in there]
    chosen = choose(there, needed, NOW, LEASE)
    stay = [item for item in there if may_go(item, NOW, LEASE) and item not in chosen]
    if chosen and stay:
        assert max(worth(item, NOW) for item in chosen) <= min(worth(item, NOW) for item in stay)


def test_what_a_byte_is_worth():
    plain = Candidate("a", 1, bytes=1000, build_seconds=100.0, uses=1, last_used_at=NOW)
    assert worth(Candidate("b", 1, 1000, 200.0, 1, NOW), NOW) == pytest.approx(worth(plain, NOW) + 1), "twice the work"
    assert worth(Candidate("c", 1, 2000, 100.0, 1, NOW), NOW) == pytest.approx(worth(plain, NOW) - 1), "twice the bytes"
    assert worth(Candidate("d", 1, 1000, 100.0, 4, NOW), NOW) == pytest.approx(worth(plain, NOW) + 2), "four uses"
    assert worth(plain, NOW + HALF_LIFE) == pytest.approx(worth(plain, NOW) - 1)
    assert worth(plain, NOW - 5000) == worth(plain, NOW), "a clock that was set back"
    assert worth(Candidate("e", 1, 1000, 0.0, 9, NOW), NOW) == -math.inf, "a superseded one goes first"


def test_a_small_one_stays_where_a_large_one_is_enough():
    cheap = Candidate("cheap", 1, bytes=10, build_seconds=0.001, uses=1, last_used_at=0.0)
    large = Candidate("large", 1, bytes=1000, build_seconds=1e6, uses=1, last_used_at=0.0)
    assert choose([cheap, large], 1000, NOW, LEASE) == [large]
    assert choose([cheap, large], 1005, NOW, LEASE) == [cheap, large]
    assert choose([cheap, large], 1011, NOW, LEASE) == []


def test_room():
    disk = Space(free=1000, keep_free=200, promised=300, used=0, quota=None)
    assert disk.lacking(500) == 0
    assert disk.lacking(501) == 1
    begun = Space(free=1000, keep_free=200, promised=300, used=0, quota=1000, written=100)
    assert (begun.lacking(600), begun.lacking(601), begun.lacking(1001)) == (0, 1, 401)
    assert Space(free=10**9, keep_free=0, promised=0, used=500, quota=1000, written=100).lacking(501) == 1
    tight = Space(free=10**9, keep_free=0, promised=300, used=900, quota=1000)
    assert tight.lacking(100) == 0
    assert tight.lacking(150) == 50
    assert Space(free=0, keep_free=0, promised=0, used=600, quota=1000).lacking(50) == 50, "the disk ends first"
    assert "quota of 1 kB" in tight.in_words()


def test_what_a_build_will_take():
    known, unknown = Experience(example_bytes=10.5, archive_bytes=5000.0), Experience(None, None)
    assert expected_bytes(known, 100) == 1050
    assert expected_bytes(known, None) == 5000
    assert expected_bytes(unknown, 100) == FLOOR
    assert to_reserve(1050) == 2100
    planned = {"a": 10, "b": 30}
    assert extrapolated(planned, {"a": 100}) == 400
    assert extrapolated(planned, {}) is None
    assert extrapolated({}, {"a": 100}) is None


def test_planned_samples(tmp_path):
    assert planned_samples(tmp_path) == {}
    (tmp_path / "plan").mkdir()
    for content, planned in (
        ('{"shards": [{"file": "a", "samples": 3}, {"file": "b", "samples": 4}]}', {"a": 3, "b": 4}),
        ('{"shards": []}', {}),
        ("[]", {}),
        ("nonsense", {}),
        ('{"shards": [{"file": "a", "samples": 1e400}]}', {}),
        ('{"shards": [{"file": "a", "samples": NaN}]}', {}),
        ('{"shards": [{"file": "a", "samples": -1}]}', {}),
        (f'{{"shards": [{{"file": "a", "samples": {2**70}}}]}}', {}),
        ("[" * 100_000, {}),
    ):
        (tmp_path / "plan" / "plan.json").write_text(content)
        assert planned_samples(tmp_path) == planned
    os.truncate(tmp_path / "plan" / "plan.json", PLAN_BYTES + 1)
    assert planned_samples(tmp_path) == {}, "nor is it read"
    (tmp_path / "plan" / "plan.json").unlink()
    os.mkfifo(tmp_path / "plan" / "plan.json")
    assert planned_samples(tmp_path) == {}, "nor waited for"


def test_what_stays_free():
    assert bytes_to_keep_free(None, 10**9) == 20_000_000
    assert bytes_to_keep_free(None, 10**13) == 2_000_000_000
    assert bytes_to_keep_free(0, 10**13) == 0


def test_words():
    assert [in_words(size) for size in (0, 999, 1500, 2e9, 3.5e12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "2 GB",
        "3.5 TB",
    ]
    there = [
        Candidate("a", 1, 1000, 1.0, 1, 0.0, pinned=True),
        Candidate("b", 1, 2000, 1.0, 1, NOW),
        Candidate("c", 1, 3000, 1.0, 1, 0.0),
    ]
    said = reasons_to_stay(there, NOW, LEASE)
    assert "1 kB are pinned" in said
    assert "2 kB were in use" in said
    assert "3 kB could go" in said
