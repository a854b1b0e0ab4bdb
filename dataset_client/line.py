"""What the kernel knows of the line under a connection (``TCP_INFO``), where it tells: on Linux."""

import contextlib
import socket
import struct
import sys
from typing import NamedTuple

#: Where `struct tcp_info` of Linux' <linux/tcp.h>, which only ever grows, has ``tcpi_options``, ``tcpi_rcv_rtt`` and
#: ``tcpi_min_rtt``, these in microseconds; and how much of it there has to be.
_OPTIONS, _RECEIVER_RTT, _LEAST_RTT, _SIZE = 5, 92, 148, 152
_TIMESTAMPS = 1


class RoundTrip(NamedTuple):
    """Seconds that a round trip takes: at ``least`` so far, and those of the bytes that arrive ``now``, which have
    waited in queues, and for a sender that paused before it sent them.
    """

    least: float
    now: float


def round_trip(connection: object) -> RoundTrip | None:
    """The round trips of a TCP connection that receives, None where that is not known (yet): also where its packets
    bear no time stamps, by which the kernel knows it, and where it is no socket of its own.
    """
    if not isinstance(connection, socket.socket) or not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError):  # closed meanwhile, or no TCP
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
        if len(told) == _SIZE and told[_OPTIONS] & _TIMESTAMPS:
            now, least = (struct.unpack_from("=I", told, place)[0] for place in (_RECEIVER_RTT, _LEAST_RTT))
            if now and least and least != 0xFFFFFFFF:
                return RoundTrip(least / 1e6, now / 1e6)
    return None
