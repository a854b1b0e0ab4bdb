"""Bad input through the real commands: each fault has its code and says what to do; the events stay readable."""

import argparse
import json
import os
import shutil

import pytest

from dataset_handlers.__main__ import _request
from dataset_handlers.commands import COMMANDS, check_request
from dataset_handlers.errors import HandlerError, RequestError
from dataset_handlers.external import build_external, check_options, plan_external
from dataset_handlers.shards import WorkFolder
from tests.handlers.support import command_line, contents, plan_and_build, run_command, write_request
from tests.handlers.third_party import Whole


def fails(outcome, code, *words):
    assert outcome.status == 1, outcome.log
    assert outcome.last["event"] == "error"
    assert outcome.last["code"] == code, outcome.last
    for word in words:
        assert word in outcome.last["message"]


def test_requests_that_say_nothing(tmp_path, raw_root):
    file = tmp_path / "request.json"
    file.write_bytes(b"[" * 100_000)
    fails(run_command("describe", file), "request_malformed")
    for content in (b"", b"{", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(RequestError, match="cannot be read"):
            _request(argparse.Namespace(request=file))
    for request in (None, [], {}, 7, "", {"dataset": 5, "handler_api": 1}, {"dataset": "duts"}):
        with pytest.raises(RequestError):
            check_request(request)
    fails(run_command("plan", tmp_path / "absent.json"), "request_malformed", "absent.json")


@pytest.mark.parametrize(
    "change",
    [
        {"handler_api": 2}, {"handler_api": None}, {"config": []}, {"config": "{}"}, {"config": None}, {"workers": 0},
        {"workers": -1}, {"workers": "2"}, {"workers": True}, {"work_dir": 5}, {"raw_root": None},
        {"handler": ["duts"]}, {"shards": 0}, {"shards": ["0"]}, {"shards": [[0]]}, {"die_with_parent": "me"},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_requests_of_another_shape(tmp_path, raw_root, change):
    ask = {"handler_api": 1, "dataset": "duts", "config": {"image_size": [32, 32], "limit": 2}}
    ask |= {"raw_root": str(raw_root), "work_dir": str(tmp_path)}
    COMMANDS["plan"](check_request(ask), lambda _: None)
    with pytest.raises(RequestError):
        COMMANDS["build"](check_request({**ask, **change}), lambda _: None)


def test_the_other_api_is_named(tmp_path, raw_root):
    file = write_request(tmp_path / "r.json", dataset="duts", handler_api=2)
    fails(run_command("describe", file), "request_malformed", "handler_api 1", "2", "agree")


def test_an_unknown_dataset_lists_those_installed(tmp_path):
    outcome = run_command("describe", write_request(tmp_path / "r.json", dataset="cooc\ud800"))
    fails(outcome, "dataset_unknown", "camvid, coco, composite, cutouts, duts, logos, mattes")


def test_a_refused_config_carries_its_faults(tmp_path, raw_root):
    config = {"image_sise": [1, 1], "seed": "1"}
    for command in ("describe", "plan"):
        ask = write_request(tmp_path / "r.json", dataset="duts", config=config, raw_root=raw_root, work_dir=tmp_path)
        outcome = run_command(command, ask)
        fails(outcome, "config_refused", "image_size")
        assert [fault["path"] for fault in outcome.last["faults"]] == ["/seed", "/image_sise"]


def test_missing_raw_data(tmp_path):
    for dataset in ("coco", "duts", "composite"):
        outcome = plan_and_build(tmp_path, dataset=dataset, config={}, raw_root=tmp_path / "nowhere")
        fails(outcome, "raw_data_unusable", "is not there")
    (tmp_path / "raw" / "duts").mkdir(parents=True)
    fails(
        plan_and_build(tmp_path, dataset="duts", config={}, raw_root=tmp_path / "raw"), "raw_data_unusable", "DUTS-TR"
    )


def test_selections_without_samples(tmp_path, raw_root, plugin_python):
    splits = {"train": 0.99, "validation": 0.01}
    outcome = plan_and_build(tmp_path, dataset="duts", config={"splits": splits}, raw_root=raw_root)
    fails(outcome, "empty_selection", "'validation'", "none of 26")
    outcome = plan_and_build(tmp_path, plugin_python, dataset="number", config={"count": 0}, raw_root=raw_root)
    fails(outcome, "empty_selection")


def test_a_build_without_a_plan(tmp_path, raw_root):
    file = write_request(tmp_path / "r.json", dataset="duts", config={}, raw_root=raw_root, work_dir=tmp_path)
    fails(run_command("build", file), "request_malformed", "no plan")


def test_what_cannot_be_read_is_quarantined_and_listed(tmp_path, raw_root):
    raw = tmp_path / "raw"
    shutil.copytree(raw_root / "duts", raw / "duts")
    folder = raw / "duts" / "DUTS-TR"
    whole = (folder / "DUTS-TR-Image" / "figure_00003.jpg").read_bytes()
    (folder / "DUTS-TR-Image" / "figure_00003.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "DUTS-TR-Mask" / "figure_00007.png").unlink()
    config = {"image_size": [48, 48]}
    outcome = plan_and_build(tmp_path / "work", dataset="duts", config=config, raw_root=raw, workers=2)
    assert outcome.last["event"] == "finished"
    assert outcome.last["quarantined"] == 2
    manifest = json.loads(contents(tmp_path / "work")["manifest.json"])
    reasons = {item["key"]: item["reason"] for item in manifest["quarantine"]}
    assert set(reasons) == {"DUTS-TR/figure_00003", "DUTS-TR/figure_00007"}
    assert "truncated" in reasons["DUTS-TR/figure_00003"]
    assert reasons["DUTS-TR/figure_00007"] == "figure_00007.jpg has no mask figure_00007.png"
    assert sum(split["examples"] for split in manifest["splits"].values()) == 24
    strict = {**config, "max_quarantined_share": 0.05}
    outcome = plan_and_build(tmp_path / "strict", dataset="duts", config=strict, raw_root=raw, workers=2)
    fails(outcome, "too_many_bad_samples", "max_quarantined_share = 0.05")


def test_too_many_bad_samples_end_a_build_early_and_again(tmp_path, raw_root, plugin_python):
    config = {"count": 400, "special": 0, "examples_per_shard": 4, "pause": 0.001}
    ask = {"dataset": "rotten", "config": config, "raw_root": raw_root, "workers": 1}
    outcome = plan_and_build(tmp_path, plugin_python, **ask)
    fails(outcome, "too_many_bad_samples", "is rotten", "0.1")
    assert len(outcome.of("shard")) == 11  # of 100: 44 of 400 samples are the first that are too many
    fails(run_command("build", tmp_path / "request.json", plugin_python), "too_many_bad_samples")


def test_too_many_bad_samples_are_too_many_also_when_all_is_sealed(tmp_path, raw_root, plugin_python):
    config = {"count": 10, "special": 5}  # one shard
    outcome = plan_and_build(tmp_path, plugin_python, dataset="rotten", config=config, raw_root=raw_root)
    fails(outcome, "too_many_bad_samples", "50.0%")
    again = run_command("build", tmp_path / "request.json", plugin_python)
    fails(again, "too_many_bad_samples", "50.0%")
    assert not (tmp_path / "dataset" / "manifest.json").exists()


def test_exactly_as_many_bad_samples_as_allowed_pass(tmp_path, raw_root, plugin_python):
    config = {"count": 100, "special": 71, "max_quarantined_share": 0.29}  # 0.29 × 100 < 29 in floating point
    outcome = plan_and_build(tmp_path, plugin_python, dataset="rotten", config=config, raw_root=raw_root, workers=2)
    assert outcome.last["event"] == "finished"
    assert outcome.last["quarantined"] == 29


def test_a_disk_that_is_full_for_a_sample_is_full(tmp_path, raw_root, plugin_python):
    """It is not the handler's fault: the server waits for space, and goes on."""
    outcome = plan_and_build(tmp_path, plugin_python, dataset="full", config={"count": 9}, raw_root=raw_root, workers=2)
    fails(outcome, "disk_full", "no space left")


def test_what_a_handler_prints_is_no_event(tmp_path, raw_root, plugin_python):
    outcome = plan_and_build(
        tmp_path, plugin_python, dataset="loud", config={"count": 20}, raw_root=raw_root, workers=2, plan_here=False
    )
    assert outcome.status == 0
    assert {event["event"] for event in outcome.events} == {"progress", "shard", "finished"}
    assert all(event["number"] != 99 for event in outcome.of("shard"))
    for line in ("straight to the descriptor", "from a child", '"number": 99'):
        assert line in outcome.log


@pytest.mark.parametrize(
    ("dataset", "words"),
    [("absent", ["cannot be imported", "Absent"]), ("helper", ["is not a DatasetHandler class"])],
)
def test_entry_points_that_lead_nowhere(tmp_path, plugin_python, dataset, words):
    outcome = run_command("describe", write_request(tmp_path / "r.json", dataset=dataset), plugin_python)
    fails(outcome, "handler_failed", *words)


def test_an_entry_point_of_another_name_makes_the_dataset(tmp_path, raw_root, plugin_python):
    outcome = plan_and_build(
        tmp_path, plugin_python, dataset="mine", handler="number", config={"count": 5}, raw_root=raw_root
    )
    assert outcome.last["files"][0] == "mine-train.tfrecord-00000-of-00001"


def whole(folder, raw_root, python, **config):
    return plan_and_build(
        folder, python, plan_here=False, dataset="whole", config={"count": 5, **config}, raw_root=raw_root
    )


def test_a_full_contract_handler(tmp_path, raw_root, plugin_python):
    outcome = whole(tmp_path, raw_root, plugin_python, batch_size=9)
    assert outcome.status == 0, outcome.log
    assert outcome.last["files"][:3] == [
        "whole-train.tfrecord-00000-of-00002",
        "whole-train.tfrecord-00001-of-00002",
        "whole-test.tfrecord-00000-of-00001",
    ]
    manifest = json.loads(contents(tmp_path)["manifest.json"])
    assert manifest["splits"] == {"train": {"examples": 10, "shards": 2}, "test": {"examples": 5, "shards": 1}}
    assert manifest["config"] == {"fault": "none", "count": 5}
    assert not (tmp_path / "scratch").exists()
    again = run_command("build", tmp_path / "request.json", plugin_python)
    assert again.last == outcome.last


@pytest.mark.parametrize(
    ("fault", "code", "word"),
    [
        ("missing", "handler_failed", "d-test.tfrecord, which does not exist"),
        ("nothing", "handler_failed", "no shard"),
        ("damaged", "shard_corrupt", "b-train.tfrecord"),
        ("truncated", "shard_corrupt", "b-train.tfrecord"),
        ("no example", "shard_corrupt", "not a tf.train.Example"),
        ("raise", "handler_failed", "ValueError: its own mistake"),
        ("exit", "handler_failed", "SystemExit"),
        ("full", "disk_full", "no space left"),
    ],
)
def test_a_full_contract_handler_that_fails(tmp_path, raw_root, plugin_python, fault, code, word):
    if fault in ("raise", "exit", "full", "damaged"):  # the process must survive these
        fails(whole(tmp_path, raw_root, plugin_python, fault=fault), code, word)
        assert not (tmp_path / "dataset" / "manifest.json").exists()
        return
    work = WorkFolder(tmp_path)
    work.create()
    config = check_options(Whole, {"count": 5, "fault": fault})
    made = plan_external("whole", Whole, config, work)
    with pytest.raises(HandlerError, match=word) as caught:
        build_external(made, Whole(config, str(raw_root)), work)
    assert caught.value.code == code


def test_the_options_of_a_full_contract_handler_are_checked(tmp_path, raw_root, plugin_python):
    ask = {"dataset": "whole", "config": {"counts": 1, "fault": 5}, "raw_root": raw_root, "work_dir": tmp_path}
    outcome = run_command("plan", write_request(tmp_path / "r.json", **ask), plugin_python)
    fails(outcome, "config_refused")
    assert {fault["path"] for fault in outcome.last["faults"]} == {"/counts", "/count", "/fault"}
    described = run_command(
        "describe", write_request(tmp_path / "r.json", **{**ask, "config": {"count": 2}}), plugin_python
    )
    assert described.last["effective_config"] == {"fault": "none", "count": 2}


def test_isolated_python_sees_none_of_the_surroundings(tmp_path):
    # A file of that name in the working directory must not be imported instead of ours.
    (tmp_path / "dataset_handlers.py").write_text("raise SystemExit('the wrong module')")
    outcome = run_command(
        "describe", write_request(tmp_path / "r.json", dataset="duts"), environment={"PYTHONPATH": str(tmp_path)}
    )
    assert outcome.last["event"] == "described"
    assert os.fspath(command_line("x", "y")[1]) == "-I"
