"""``GET /events`` of a real server: what a socket would bring, for who can open none."""

import json
from contextlib import closing
from http.client import HTTPConnection

from dataset_client.protocol import canonical_json, hash_dataset_name


def test_a_question_that_waits_is_answered_by_the_event(server):
    config = {"count": 1, "seed": 77}
    topic = hash_dataset_name("tones", "1.0", canonical_json(config))
    # Less patience than the server has, which looks for itself after half a minute and gives up after 50 seconds.
    with closing(HTTPConnection(*server.url.removeprefix("http://").split(":"), timeout=20)) as connection:
        connection.request("GET", f"/api/v1/events?topic={topic}&wait=50")
        for _ in range(3):  # by the time that others are answered the question waits
            assert server.get(f"events?topic={topic}&wait=0").json()["messages"][1:] == []
        assert server.post("tones", config, "1.0").json()["topic_id"] == topic
        answer = connection.getresponse()
        subscribed, *events = json.load(answer)["messages"]
    assert (answer.status, subscribed["kind"], subscribed["topic_id"]) == (200, "subscribed", topic)
    assert events[0]["number"] == 1
    assert all(event["topic_id"] == topic for event in events)
