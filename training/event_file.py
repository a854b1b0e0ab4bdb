"""TensorBoard's event files, written without TensorFlow.

A file is a sequence of TFRecord frames (`dataset_client.readers.tfrecord`), each around one protobuf message::

    Event       1 wall_time: double   2 step: int64   3 file_version: string ("brain.Event:2", in the first one)
                5 summary: Summary    7 session_log: SessionLog
    Summary     1 value: repeated Value
    Value       1 tag: string         2 simple_value: float   4 image: Image
    Image       1 height: int32       2 width: int32   3 colorspace: int32 (3 is RGB)   4 encoded_image_string: bytes
    SessionLog  1 status: enum (1 is START): what other files hold from this step on is void
"""

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from dataset_client.readers.tfrecord import crc32c, masked

_START = 1
_RGB = 3


class EventFile:
    """Appends to a new file; every event is on its way to the disk when the call returns.

    ``first_step`` is 0 for a new training, or the step that a resumed one does first.
    """

    def __init__(self, path: Path, *, first_step: int) -> None:
        self._file = path.open("xb")
        self._write(b"", step=0, file_version=True)
        if first_step:
            # A training that was killed had gone on beyond what it had saved.
            self._write(_message(7, _varint(1, _START)), step=first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by tag, such as "loss/train", at a step ≥ 0."""
        summary = b"".join(
            _message(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
        )
        self._write(_message(5, summary), step=step)

    def image(self, step: int, tag: str, encoded: bytes, *, height: int, width: int) -> None:
        """A picture as JPEG or PNG."""
        image = _varint(1, height) + _varint(2, width) + _varint(3, _RGB) + _bytes(4, encoded)
        self._write(_message(5, _message(1, _bytes(1, tag.encode()) + _message(4, image))), step=step)

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def _write(self, body: bytes, *, step: int, file_version: bool = False) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + (_varint(2, step) if step else b"")
        if file_version:
            event += _bytes(3, b"brain.Event:2")
        event += body
        length = struct.pack("<Q", len(event))
        frame = (length, _checksum(length), event, _checksum(event))
        self._file.write(b"".join(frame))
        self._file.flush()


def file_suffix() -> str:
    """What tells the files of one directory apart: when, on which host, by which process they were begun."""
    return f"{time.time_ns() // 1000}.{os.uname().nodename}.{os.getpid()}"


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked(crc32c(data)))


def _varint(field: int, value: int) -> bytes:
    """A whole number ≥ 0 of a field: seven bits a byte, the lowest first."""
    return _number(field << 3) + _number(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(value)) + value


_message = _bytes  # a message within one is its bytes


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
