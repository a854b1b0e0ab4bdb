"""How often, how many, and from where: the decisions, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from dataset_server.connections import Connections
from dataset_server.limits import Bucket, Limiter, address_key, take
from dataset_server.origins import client_address, comes_from_elsewhere, is_same_origin, is_trusted, may_be_rebound


@given(
    st.integers(1, 10_000),
    st.lists(st.floats(0, 120, allow_nan=False), max_size=300),
)
def test_no_minute_has_more_than_its_share(per_minute, pauses):
    """In any stretch of time at most a full bucket plus what flowed in since."""
    now, bucket, granted = 0.0, None, []
    for pause in pauses:
        now += pause
        bucket, wait = take(bucket, now, per_minute)
        assert 0 <= bucket.level <= per_minute
        if not wait:
            granted.append(now)
    for first in range(len(granted)):
        assert len(granted) - first <= per_minute + (granted[-1] - granted[first]) * per_minute / 60 + 1e-6


@given(st.integers(1, 10_000), st.floats(0, 0.999), st.floats(0, 1e6))
def test_whoever_waits_as_told_gets_one(per_minute, level, now):
    bucket, wait = take(Bucket(level, now), now, per_minute)
    assert wait > 0
    assert take(bucket, now + wait * (1 + 1e-6) + 1e-6, per_minute)[1] == 0


def test_a_clock_that_goes_back_gives_nothing():
    assert take(Bucket(0.0, 100.0), 50.0, 60)[1] == 1.0


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_keys_do_not_share_and_memory_is_bounded():
    clock = Clock()
    limiter = Limiter(size=100, clock=clock)
    assert [limiter.take("a", 2) for _ in range(3)] == [0, 0, 30]
    assert limiter.wait("a", 2) == 30
    assert limiter.wait("b", 2) == 0
    assert limiter.take("b", 2) == 0
    clock.now = 30.0
    assert limiter.take("a", 2) == 0
    for key in range(1000):
        limiter.take(str(key), 2)
    assert len(limiter) == 100


def test_asking_for_the_wait_takes_nothing():
    limiter = Limiter(clock=Clock())
    assert [limiter.wait("a", 1) for _ in range(5)] == [0] * 5
    assert limiter.take("a", 1) == 0
    assert limiter.wait("a", 1) == 60


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("not an address", "not an address"),
    ],
)
def test_what_counts_as_one_address(address, key):
    assert address_key(address) == key


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("10.0.0.1", "", ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7", ["10.0.0.0/8"], "192.0.2.7"),
        ("10.0.0.1", "198.51.100.9, 192.0.2.7", ["10.0.0.0/8"], "192.0.2.7"),  # the first is the client's own word
        ("10.0.0.1", "192.0.2.7, 10.0.0.2", ["10.0.0.0/8"], "192.0.2.7"),
        ("10.0.0.1", "192.0.2.7", [], "10.0.0.1"),
        ("192.0.2.9", "192.0.2.7", ["10.0.0.1"], "192.0.2.9"),
        ("10.0.0.1", "<script>", ["10.0.0.1"], "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7, nonsense", ["10.0.0.1"], "10.0.0.1"),
        ("::1", "2001:db8::7", ["::1"], "2001:db8::7"),
        ("", "192.0.2.7", ["10.0.0.1"], ""),
    ],
)
def test_whose_word_is_believed_about_addresses(peer, forwarded, trusted, address):
    assert client_address(peer, forwarded, trusted) == address


def test_networks_of_another_family_are_not_trusted():
    assert not is_trusted("::1", ["127.0.0.0/8"])
    assert not is_trusted("10.1.2.3", ["::/0"])


@pytest.mark.parametrize(
    ("origin", "host", "public", "is_own"),
    [
        ("http://127.0.0.1:8710", "127.0.0.1:8710", (), True),
        ("https://data.example.org", "data.example.org", (), True),
        ("https://data.example.org", "127.0.0.1:8710", ("https://data.example.org",), True),
        ("http://data.example.org", "127.0.0.1:8710", ("https://data.example.org",), False),
        ("https://elsewhere.example", "data.example.org", (), False),
        ("http://127.0.0.1:8711", "127.0.0.1:8710", (), False),
        ("null", "", (), False),
        ("null", "null", (), False),
        ("", "", (), False),
        ("file://", "", (), False),
    ],
)
def test_which_origin_is_its_own(origin, host, public, is_own):
    assert is_same_origin(origin, host, public) is is_own


@pytest.mark.parametrize(
    ("host", "rebound"),
    [
        ("127.0.0.1:8710", False),
        ("[::1]:8710", False),
        ("localhost:8710", False),
        ("LOCALHOST", False),
        ("", False),
        ("evil.example:8710", True),
        ("127.0.0.1.evil.example", True),
        ("localhost.evil.example", True),
        ("[::1", True),
        ("user@evil.example", True),
    ],
)
def test_names_that_may_be_pointed_here(host, rebound):
    assert may_be_rebound(host) is rebound


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Host": "127.0.0.1:8710"}, None),
        ({"Host": "localhost", "Sec-Fetch-Site": "same-origin"}, None),
        ({"Host": "localhost", "Sec-Fetch-Site": "none"}, None),  # typed into the browser
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, "another site"),
        ({"Host": "localhost", "Sec-Fetch-Site": "same-site"}, "another site"),  # another port of this machine
        ({"Host": "evil.example"}, "the host"),
        ({"Host": "127.0.0.1", "X-Forwarded-For": ""}, "X-Forwarded-For"),
        ({"Host": "127.0.0.1", "x-forwarded-for": "192.0.2.7"}, "X-Forwarded-For"),
        ({"Host": "127.0.0.1", "Forwarded": "for=192.0.2.7"}, "Forwarded"),
        ({"Host": "127.0.0.1", "Via": "1.1 proxy"}, "Via"),
        ({"Host": "127.0.0.1", "X-Real-IP": "192.0.2.7"}, "X-Real-IP"),
    ],
)
def test_what_tells_that_others_than_this_machine_ask(headers, why):
    found = comes_from_elsewhere(CIMultiDict(headers))
    assert found is None if why is None else why in found


def test_connections_of_one_address():
    connections = Connections(2, lambda address: address == "10.0.0.1")
    first, second = connections.admit("192.0.2.7"), connections.admit("192.0.2.7")
    assert first is not None
    assert second is not None
    assert connections.admit("192.0.2.7") is None
    assert connections.admit("192.0.2.8") is not None
    connections.release(first)
    assert connections.admit("192.0.2.7") is not None
    assert all(connections.admit("10.0.0.1") is not None for _ in range(9)), "a trusted proxy may hold any number"
