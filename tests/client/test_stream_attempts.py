"""Of which attempt a stream hears the shards."""

from dataset_client.online import obtain


def shard(file):
    return {"file": file, "split": "train", "examples": 1, "bytes": 1, "sha256": "0" * 64, "url": f"shards/{file}"}


async def test_shards_of_the_attempt_that_answers_are_heard_and_of_no_other(
    server, topic, request_, settings, reporter
):
    topic.attempt = 1
    for kind, data in (("shard", shard("old")), ("failed", {"message": "it died"})):
        server.emit(request_.topic_id, kind, data)
    topic.on_ask = [("state", {"state": "building"}), ("shard", shard("new")), ("ready", None)]
    heard = []
    await obtain(request_, settings, reporter, on_event=heard.append)
    assert [(event.attempt, event.kind) for event in heard] == [(2, "state"), (2, "shard"), (2, "ready")]
    assert heard[1].data == shard("new")
