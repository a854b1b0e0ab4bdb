"""The limit: the tight loop in one process for each core, TFRecord frames to a file each, and no engine at all.

    python -m benchmarks.limit SAMPLES.jsonl OUT --processes 2 --decode whole
    python -m benchmarks.limit SAMPLES.jsonl OUT --check

``--decode whole`` decodes whole photos with simplejpeg; ``region`` only what the crop needs, by our own decoder.
"""

import argparse
import multiprocessing as mp
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import google_crc32c
import numpy as np

from benchmarks.clock import check, start_clock
from benchmarks.tight import Decode, decode_whole, read_samples, tight


def decode_region(data: bytes, box: tuple[int, int, int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The box of a photo, by dataset_handlers."""
    from dataset_handlers import jpeg

    header = jpeg.read_header(data)
    assert header is not None
    return jpeg.decode_region(data, header, *box), box[:2]


DECODERS: dict[str, Decode] = {"whole": decode_whole, "region": decode_region}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(tag: bytes, payload: bytes) -> bytes:
    return tag + _varint(len(payload)) + payload


def _entry(name: bytes, value: bytes) -> bytes:
    """An entry of a `tf.train.Example`: name and a list of one byte string."""
    return _field(b"\x0a", _field(b"\x0a", name) + _field(b"\x12", _field(b"\x0a", _field(b"\x0a", value))))


def _crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def work(samples: list[dict], decode: str, file: Path) -> None:
    cv2.setNumThreads(0)
    function = DECODERS[decode]
    with file.open("wb") as out:
        for sample in samples:
            image, mask = tight(sample, function)
            data = _field(b"\x0a", _entry(b"image", image) + _entry(b"mask", mask))
            length = struct.pack("<Q", len(data))
            out.write(b"".join((length, _crc(length), data, _crc(data))))


def read(out: Path) -> Iterator[tuple[bytes, bytes]]:
    from benchmarks.ours import read_shards

    yield from read_shards(sorted(out.glob("*.tfrecord")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--decode", choices=DECODERS, default="whole")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        check(read(options.out))
        return
    samples = read_samples(options.samples)
    if options.decode == "region":
        import dataset_handlers.jpeg  # noqa: F401 - before the clock starts
    options.out.mkdir(parents=True)
    start_clock()
    count = options.processes
    jobs = [(samples[part::count], options.decode, options.out / f"{part}.tfrecord") for part in range(count)]
    processes = [mp.Process(target=work, args=job) for job in jobs[1:]]
    for process in processes:
        process.start()
    work(*jobs[0])
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a process ended with {process.exitcode}")


if __name__ == "__main__":
    main()
