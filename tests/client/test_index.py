"""Any record by its number, from any thread and process, and what damage does."""

import multiprocessing
import os
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import pytest
from client_archives import record, unpack_to

from dataset_client import Dataset, errors
from dataset_client.readers.index import RecordIndex
from dataset_client.readers.tfrecord import masked

SIZES = (0, 1, 5, 40_000, 3)


def data_of(shard, number):
    return bytes([shard, number]) * (SIZES[number] // 2) + bytes(SIZES[number] % 2)


def write(directory, shards=3):
    files = []
    for shard in range(shards):
        path = directory / f"s-{shard}"
        path.write_bytes(b"".join(record(data_of(shard, number)) for number in range(len(SIZES))))
        files.append((path, len(SIZES)))
    return files


@pytest.fixture
def files(tmp_path):
    return write(tmp_path)


def test_records_by_number(files):
    records = RecordIndex([files[0], (files[0][0].with_name("empty"), 0), *files[1:]])
    assert len(records) == 15
    for number in (14, 0, 7, 3, 5, 9, 10, 4):
        path, offset, data = records.read(number)
        assert (path.name, data) == (f"s-{number // 5}", data_of(number // 5, number % 5))
        assert path.read_bytes()[offset + 12 :].startswith(data)


def test_a_shard_is_looked_at_when_it_is_read(files):
    records = RecordIndex([*files, (files[0][0].with_name("missing"), 2)])
    records.read(14)
    with pytest.raises(errors.IntegrityError, match=r"missing cannot be read: No such file"):
        records.read(15)


@pytest.mark.parametrize("position", range(28, 28 + 17))
def test_every_flipped_bit_is_found_at_its_offset(tmp_path, position):
    path = tmp_path / "r"
    data = bytearray(record(b"abcdefghijkl") + record(b"m") + record(b"n"))
    data[position] ^= 4
    path.write_bytes(data)
    records = RecordIndex([(path, 3)])
    with pytest.raises(errors.IntegrityError, match=rf"{path.name}, offset 28: the file"):
        records.read(1)
    if position >= 40:  # the data, not the way to the next record
        assert records.read(2)[2] == b"n"
        assert RecordIndex([(path, 3)], check_crc=False).read(1)[2] == bytes(data[40:41])


@pytest.mark.parametrize("length", range(1, 45))
def test_every_cut_is_found(tmp_path, length):
    path = tmp_path / "r"
    path.write_bytes((record(b"abcdefghijkl") + record(b"m"))[:length])
    with pytest.raises(errors.IntegrityError, match=r"r, offset (0|28): the file ends"):
        RecordIndex([(path, 2)]).read(0)


def test_more_records_than_the_manifest_says(tmp_path):
    path = tmp_path / "r"
    path.write_bytes(record(b"a") * 3)
    with pytest.raises(errors.IntegrityError, match=r"offset 34: the file has more than the 2 examples"):
        RecordIndex([(path, 2)]).read(0)


def test_a_file_cut_after_it_was_looked_at(files):
    records = RecordIndex(files)
    records.read(0)
    os.truncate(files[0][0], 60)
    with pytest.raises(errors.IntegrityError, match="ends within a record of 40000 bytes"):
        records.read(3)


@pytest.mark.parametrize("length", [1 << 30, 1 << 60, (1 << 64) - 1])
def test_a_length_beyond_the_file_allocates_nothing(tmp_path, length):
    header = struct.pack("<Q", length)
    (tmp_path / "r").write_bytes(header + struct.pack("<I", masked(google_crc32c.value(header))) + b"data")
    with pytest.raises(errors.IntegrityError, match=f"ends within a record of {length} bytes"):
        RecordIndex([(tmp_path / "r", 1)]).read(0)


def test_many_threads_share_an_index(files):
    records = RecordIndex(files)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: records.read(number % 15)[2], range(600)))
    assert found == [data_of(number % 15 // 5, number % 5) for number in range(600)]


def _read_all(records, numbers, sender):
    sender.send([records.read(number)[2] for number in numbers])


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_forked_processes_read_through_the_same_open_files(files):
    records = RecordIndex(files)
    records.read(0)
    context = multiprocessing.get_context("fork")
    orders = [list(range(15)) * 20, list(range(14, -1, -1)) * 20]
    ends, processes = [], []
    for numbers in orders:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_read_all, args=(records, numbers, sender))
        process.start()
        ends.append(receiver)
        processes.append(process)
    for numbers, receiver, process in zip(orders, ends, processes, strict=True):
        assert receiver.recv() == [data_of(number // 5, number % 5) for number in numbers]
        process.join()
    assert records.read(3)[2] == data_of(0, 3)


def test_an_index_can_be_pickled(files):
    records = pickle.loads(pickle.dumps(RecordIndex(files, check_crc=False)))
    assert records.read(3)[2] == data_of(0, 3)


def test_only_so_many_files_stay_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    records = RecordIndex(write(tmp_path, shards=6), max_open=2)
    for number in range(0, 30, 4):
        assert records.read(number)[2] == data_of(number // 5, number % 5)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del records
    assert len(os.listdir("/proc/self/fd")) == before


# --- examples -----------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    return Dataset.open(unpack_to(tmp_path / "discs"))


def test_examples_by_number(dataset):
    examples = dataset.examples("train")
    keys = [example["key"] for example in dataset.as_numpy_iterator("train")]
    assert len(examples) == 5
    assert [examples[index]["key"] for index in range(5)] == keys
    assert [examples[index]["key"] for index in range(-5, 0)] == keys
    assert [example["key"] for example in examples] == keys
    assert [example["key"] for example in examples[3:0:-2]] == keys[3:0:-2]
    assert examples[1:][1:][-1]["key"] == keys[-1]
    assert pickle.loads(pickle.dumps(examples))[2]["key"] == keys[2]
    for number in (5, -6):
        with pytest.raises(IndexError, match=rf"example {number} of 5"):
            examples[number]


def test_examples_of_a_split_that_is_not_there(dataset):
    with pytest.raises(errors.UnknownSplitError):
        dataset.examples("test")


def test_a_shard_with_another_number_of_examples(dataset):
    path = dataset.files("train")[1]
    path.write_bytes(path.read_bytes() + record(b""))
    with pytest.raises(errors.IntegrityError, match=f"{path.name}.* more than the 2 examples"):
        dataset.examples("train")[2]
