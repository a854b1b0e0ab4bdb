"""What was said on topics. Numbers rise by topic and are given inside the transaction that makes the news true."""

import json
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .schema import events, topics

#: Topics that one statement names: databases bound how many values it may have.
_AT_ONCE = 500


async def append(db: AsyncConnection, topic_ids: Sequence[str], kind: str, data: dict[str, Any]) -> None:
    """Give each topic its next event; numbers are taken inside the caller's transaction."""
    said = {"kind": kind, "data": json.dumps(data, separators=(",", ":")), "created_at": time.time()}
    for start in range(0, len(topic_ids), _AT_ONCE):
        numbered = await db.execute(
            update(topics)
            .where(topics.c.topic_id.in_(topic_ids[start : start + _AT_ONCE]))
            .values(last_number=topics.c.last_number + 1)
            .returning(topics.c.topic_id, topics.c.last_number.label("number"), topics.c.attempt)
        )
        await db.execute(insert(events), [{**row._mapping, **said} for row in numbered])
