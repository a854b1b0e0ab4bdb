"""What goes where: order, splits, shards, and plans that were tampered with."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataset_handlers.coco import CocoHandler
from dataset_handlers.commands import _refuse_too_many, build, plan
from dataset_handlers.duts import DutsHandler
from dataset_handlers.errors import EmptySelectionError, RequestError, TooManyBadSamplesError
from dataset_handlers.files import parse_large_json, write_large_json
from dataset_handlers.plan import Plan, Rejected, Sample, assign_splits, cut_into_shards, select, write_samples
from dataset_handlers.shards import WorkFolder
from tests.handlers.third_party import Number


def keys(samples):
    return [sample.key for sample in samples]


def test_order_is_by_hash_and_not_by_arrival():
    samples = [Sample(str(number)) for number in range(50)]
    ordered, _ = select(samples, 1)
    assert keys(select(reversed(samples), 1)[0]) == keys(ordered) != keys(samples)
    assert keys(select(samples, 2)[0]) != keys(ordered)
    assert sorted(keys(ordered)) == sorted(keys(samples))


def test_a_limit_takes_the_same_first_ones(tmp_path):
    chosen = []
    for limit in (5, 10, None):
        handler, work = Number({"count": 20, "limit": limit, "examples_per_shard": 1000}, "raw"), WorkFolder(tmp_path)
        work.create()
        handler.plan("n", work)
        chosen.append([key for key, _ in json.loads((work.plan / "shard-00000.json").read_bytes())["samples"]])
    assert chosen[0] == chosen[1][:5]
    assert chosen[1] == chosen[2][:10]


def test_doubled_keys_are_rejected():
    ordered, rejected = select([Sample("a", {"n": 1}), Sample("a", {"n": 2}), Rejected("b", "why")], 0)
    assert [sample.data["n"] for sample in ordered] == [1]
    assert rejected == [Rejected("a", "another sample has the same key"), Rejected("b", "why")]


def test_a_name_that_is_not_utf8_is_rejected_in_words_that_are():
    ordered, rejected = select([Sample("bad\udcff"), Rejected("worse\udcfe", "no \udcfd"), Sample("good")], 0)
    assert keys(ordered) == ["good"]
    assert [item.key for item in rejected] == ["bad\\udcff", "worse\\udcfe"]
    json.dumps([item.reason for item in rejected], ensure_ascii=False).encode()


fractions = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def test_data_that_is_no_json_is_the_handlers_mistake():
    with pytest.raises(TypeError, match="holds PosixPath, which is not JSON"):
        select([Sample("a", {"size": [1, 2.5, None, True], "photo": Path("a.jpg")})], seed=0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_what_is_written_fast_reads_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "large.json"
    write_large_json(path, value)
    assert repr(json.loads(path.read_bytes())) == repr(value) == repr(parse_large_json(path.read_bytes()))


@given(JSON, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.booleans())
def test_what_is_parsed_fast_is_what_json_makes_of_it(value, encoding, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only).encode(encoding)
    assert repr(parse_large_json(data)) == repr(json.loads(data))


@pytest.mark.parametrize(
    "data", [b'"\\udc80"', b'{"a": 1, "a": 2}', b"[1e400, -0.0, 1E5]", b"[1,]", b"\xff", b"", b"[" * 9]
)
def test_oddities_are_parsed_as_json_does(data):
    def outcome(parse):
        try:
            return repr(parse(data))
        except ValueError:
            return "refused"

    assert outcome(parse_large_json) == outcome(json.loads)


@given(st.integers(1, 300), fractions, st.integers(0, 5))
def test_splits_hold_every_sample_once_at_their_sizes(count, weights, seed):
    samples = [Sample(str(number)) for number in range(count)]
    shares = {f"s{number}": weight / sum(weights) for number, weight in enumerate(weights)}
    try:
        by_split = assign_splits(samples, shares, seed)
    except EmptySelectionError:
        assume(min(shares.values()) * count >= 1)  # only a split that is owed less than one sample may be empty
        raise
    assert Counter(key for part in by_split.values() for key in keys(part)) == Counter(keys(samples))
    for name, part in by_split.items():
        assert abs(len(part) - shares[name] * count) <= 1


def test_shares_that_sum_to_almost_1_lose_no_sample():
    samples = [Sample(str(number)) for number in range(2000)]
    by_split = assign_splits(samples, {"a": 0.6, "b": 0.3995}, 0)
    assert sum(map(len, by_split.values())) == 2000


def test_splits_do_not_depend_on_their_order_in_the_config():
    samples = [Sample(str(number)) for number in range(30)]
    one = assign_splits(samples, {"validation": 0.3, "train": 0.7}, 0)
    other = assign_splits(samples, {"train": 0.7, "validation": 0.3}, 0)
    assert one == other
    assert list(one) == list(other) == ["train", "validation"]


def test_a_split_that_would_be_empty_is_refused():
    with pytest.raises(EmptySelectionError, match="'validation' gets none of 5 samples"):
        assign_splits([Sample(str(number)) for number in range(5)], {"train": 0.95, "validation": 0.05}, 0)
    with pytest.raises(EmptySelectionError, match="selects no sample"):
        assign_splits([], {"train": 1.0}, 0)


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 600))
def test_a_shard_holds_no_more_examples_than_allowed(samples, variations, bound):
    cuts = cut_into_shards([variations] * samples, bound)
    assert [end for _, end in cuts[:-1]] == [start for start, _ in cuts[1:]]
    assert (cuts[0][0], cuts[-1][1]) == (0, samples)
    sizes = [end - start for start, end in cuts]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * variations <= bound or max(sizes) == 1  # a sample's variations stay together


@given(st.lists(st.integers(1, 30), min_size=1, max_size=300), st.integers(1, 200))
def test_nor_where_samples_are_varied_more_and_less_often(variations, bound):
    cuts = cut_into_shards(variations, bound)
    assert [number for start, end in cuts for number in range(start, end)] == list(range(len(variations)))
    for start, end in cuts:
        assert sum(variations[start:end]) <= bound or max(variations) > bound / 2


def test_shards_cut_a_split_in_order_and_whole(tmp_path):
    samples = [Sample(str(number), {"n": number}) for number in range(37)]
    planned = write_samples(tmp_path, "d", {"train": samples}, lambda _: 1, 5, {})
    found = [
        key
        for shard in planned
        for key, _ in json.loads((tmp_path / f"shard-{shard.number:05}.json").read_bytes())["samples"]
    ]
    assert found == keys(samples)
    assert [shard.file for shard in planned[:2]] == [
        "d-train.tfrecord-00000-of-00008",
        "d-train.tfrecord-00001-of-00008",
    ]
    assert sum(shard.samples for shard in planned) == 37


def request(handler, folder, raw, **config):
    return {"dataset": handler, "config": config, "raw_root": str(raw), "work_dir": str(folder), "workers": 1}


def duts(folder, raw_root, **config):
    return request("duts", folder, raw_root, image_size=[32, 32], **config)


def test_a_plan_reads_back(raw_root, tmp_path):
    plan(duts(tmp_path, raw_root), lambda _: None)
    stored = Plan.load(tmp_path / "plan")
    assert stored.samples == 26
    assert stored.splits == ["train", "test"]
    Plan.save(stored, tmp_path / "plan")
    assert Plan.load(tmp_path / "plan") == stored


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"format":1', '"format":2'),
        lambda text: text.replace('"number":0', '"numbre":0'),
        lambda text: text.replace('"shards":', '"shars":'),
        lambda text: text.replace('"found":', '"unheard":1,"found":'),
    ],
)
def test_a_damaged_header_is_refused(raw_root, tmp_path, change):
    plan(duts(tmp_path, raw_root), lambda _: None)
    header = tmp_path / "plan" / "plan.json"
    text = header.read_text()
    assert change(text) != text
    header.write_text(change(text))
    with pytest.raises(RequestError):
        build(duts(tmp_path, raw_root), lambda _: None)


def test_tampered_and_missing_samples_are_refused(raw_root, tmp_path):
    plan(duts(tmp_path, raw_root), lambda _: None)
    file = tmp_path / "plan" / "shard-00000.json"
    file.write_text(file.read_text().replace("figure_", "figurE_", 1))
    with pytest.raises(Exception, match="does not belong to its plan") as caught:
        build(duts(tmp_path, raw_root), lambda _: None)
    assert caught.value.code == "request_malformed"
    file.unlink()
    with pytest.raises(Exception, match="cannot be read") as caught:
        build(duts(tmp_path, raw_root), lambda _: None)
    assert caught.value.code == "request_malformed"


def test_a_build_with_another_config_or_name_than_planned_is_refused(raw_root, tmp_path):
    plan(duts(tmp_path, raw_root), lambda _: None)
    with pytest.raises(RequestError, match="another dataset or config"):
        build(duts(tmp_path, raw_root, exposure=[1, 1]), lambda _: None)
    with pytest.raises(RequestError, match="another dataset or config"):
        build({**duts(tmp_path, raw_root), "dataset": "mine", "handler": "duts"}, lambda _: None)
    build(duts(tmp_path, raw_root, batch_size=7), lambda _: None)  # a reader's option is no difference


def test_shards_of_an_earlier_config_are_not_taken_for_those_of_this_one(raw_root, tmp_path):
    made = []
    for light in (0, 3):
        asked = duts(tmp_path, raw_root, exposure=[light, light])
        plan(asked, lambda _: None)
        build(asked, lambda _: None)
        made.append((tmp_path / "dataset" / "duts-test.tfrecord-00000-of-00001").read_bytes())
    assert made[0] != made[1]


def test_unusable_samples_outside_a_limit_do_not_fail_it(tmp_path):
    class Few(Number):
        def samples(self):
            yield from super().samples()
            yield Rejected("r", "cannot be used")

    for limit, allowed in ((2, 0.1), (None, 0.1)):
        handler, work = (
            Few({"count": 20, "limit": limit, "max_quarantined_share": allowed}, str(tmp_path)),
            WorkFolder(tmp_path),
        )
        work.create()
        made = handler.plan("few", work)
        assert len(made.rejected) == 1
        _refuse_too_many(handler, made, 0, ())
        with pytest.raises(TooManyBadSamplesError, match="cannot be used"):
            _refuse_too_many(handler, made, made.samples, ())


@pytest.mark.parametrize("handler", [CocoHandler, DutsHandler])
def test_a_number_of_samples_is_kept(handler, raw_root, tmp_path):
    options = {"categories": ["figure"]} if handler is CocoHandler else {}
    work = WorkFolder(tmp_path)
    work.create()
    made = handler({**options, "limit": 7}, str(raw_root)).plan("d", work)
    assert (made.samples, made.found) == (7, 26)
