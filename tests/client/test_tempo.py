"""How many connections there are, and what each asks for."""

import socket
import sys

import pytest

from dataset_client.line import RoundTrip, round_trip
from dataset_client.tempo import Tempo, first_connections, is_full, portion

MEGA = 1 << 20


def run_at(tempo, rates):
    """How many connections there are after each of some rates measured."""
    found = []
    for rate in rates:
        tempo.measured(rate)
        found.append(tempo.connections)
    return found


def test_requests_grow_and_all_ask_for_less_towards_the_end():
    assert portion(0, 0, 1000 * MEGA, 2, is_settled=True) == MEGA // 4, "of a new one nothing is known"
    assert portion(MEGA // 4, 100 * MEGA, 1000 * MEGA, 2, is_settled=True) == 2 * MEGA, (
        "not more than eight times as much at once"
    )
    assert portion(500 * MEGA, 100 * MEGA, 300 * MEGA, 2, is_settled=True) == 75 * MEGA, "so that both end together"
    assert portion(500 * MEGA, 8 * MEGA, 1, 2, is_settled=True) == 2 * MEGA, "a quarter of a second at least"


def test_who_is_alone_asks_for_all_there_is():
    assert portion(0, 0, 300 * MEGA, 1, is_settled=False) == 300 * MEGA
    assert portion(500 * MEGA, 100 * MEGA, 300 * MEGA, 1, is_settled=True) == 300 * MEGA


def test_where_more_are_to_be_tried_nobody_asks_for_all():
    assert portion(50 * MEGA, 100 * MEGA, 300 * MEGA, 1, is_settled=False) == 100 * MEGA
    tempo = Tempo(16)
    settled = []
    for rate in [9, 100, 9, 101, *[100] * 9]:
        settled.append(tempo.is_settled)
        tempo.measured(rate)
    assert settled == [False] * 4 + [True] * 9
    assert not tempo.is_settled


def test_what_is_near_has_two_at_first():
    assert [first_connections(seconds) for seconds in (0.001, 0.05, None)] == [2, 1, 1]


def test_slow_connections_ask_for_little():
    assert portion(MEGA, MEGA // 8, 1000 * MEGA, 16, is_settled=True) == MEGA
    assert portion(MEGA, 100, 1000 * MEGA, 16, is_settled=True) == MEGA // 4, "a request has to be worth it"


def test_connections_are_added_while_that_is_faster():
    assert run_at(Tempo(16), [9, 50, 9, 100, 9, 200, 9, 400, 9, 800, 1000]) == [1, 2, 2, 4, 4, 8, 8, 16, 16, 16, 16]
    assert run_at(Tempo(16), [9, 100, 400, 101]) == [1, 2, 2, 1], "what they do at first does not count"
    assert run_at(Tempo(1), [9, 100, 200]) == [1, 1, 1]


def test_more_are_tried_again_later_and_later():
    first, later = [9, 100, 9, 101], [*[100] * 10, 100, 9, 101]
    found = run_at(Tempo(16), [*first, *later, *[100] * 20, 100])
    assert found == [1, 2, 2, 1, *[1] * 10, 2, 2, 1, *[1] * 20, 2]


def test_a_line_that_seems_full_is_left_as_it_is_for_a_while():
    tempo = Tempo(16)
    found = []
    for _ in range(44):
        tempo.measured(100, is_full=True)
        found.append((tempo.connections, tempo.is_settled))
    assert found[1:40] == [(1, True)] * 39
    assert [connections for connections, _ in found[40:]] == [1, 1, 2, 2], "it may have seemed so"
    tempo.measured(110, is_full=True)
    assert tempo.connections == 1, "a trial is judged by what it brought"
    found = []
    for _ in range(95):
        tempo.measured(100, is_full=True)
        found.append(tempo.connections)
    assert (found[:91], found[91]) == ([1] * 91, 2), "later and later"


def test_no_more_are_tried_than_there_are_threads_for():
    tempo = Tempo(16)
    run_at(tempo, [9, 50, 9, 100])
    assert tempo.connections == 4
    tempo.bears_only(3)
    assert run_at(tempo, [9, 50, 9, 100] * 5)[-1] == 3


@pytest.mark.parametrize(
    ("trips", "expected"),
    [
        ([(0.05, 0.08)], True),
        ([(0.05, 0.055)], False),
        ([(0.05, 0.08), (0.08, 0.09)], True),
        ([(0.05, 0.08), (0.05, 0.05)], False),
        ([(0.001, 0.005)], False),
        ([], False),
    ],
    ids=["queue", "none", "the later one was in it from the start", "of one alone", "near", "unknown"],
)
def test_a_line_is_full_where_bytes_wait_on_their_way(trips, expected):
    assert is_full([RoundTrip(*trip) for trip in trips]) is expected


def test_the_kernel_tells_how_long_bytes_take():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as one, listening.accept()[0] as other:
            for _ in range(200):
                other.sendall(bytes(1 << 16))
                received = 0
                while received < 1 << 16:
                    received += len(one.recv(1 << 16))
            trip = round_trip(one)
        assert round_trip(one) is None, "closed"
    assert sys.platform != "linux" or (trip is not None and 0 < trip.least < 1 and 0 < trip.now < 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert round_trip(ours) is None, "no TCP"


def test_connections_are_given_up_when_they_are_not_borne():
    tempo = Tempo(16)
    run_at(tempo, [9, 50, 9, 100, 9, 200, 9, 400])
    tempo.broke()
    assert tempo.connections == 15
    tempo.refused()
    assert tempo.connections == 7
    for _ in range(9):
        tempo.refused()
    assert tempo.connections == 1
