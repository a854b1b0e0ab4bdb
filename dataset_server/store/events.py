"""What was said on topics. Numbers rise by topic and are given inside the transaction that makes the news true."""

import json
import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .schema import events, topics


async def append(db: AsyncConnection, topic_ids: Iterable[str], kind: str, data: dict[str, Any]) -> None:
    """Give each topic its next event; numbers are taken inside the caller's transaction."""
    text = json.dumps(data, separators=(",", ":"))
    for topic_id in topic_ids:
        numbered = await db.execute(
            update(topics)
            .where(topics.c.topic_id == topic_id)
            .values(last_number=topics.c.last_number + 1)
            .returning(topics.c.last_number, topics.c.attempt)
        )
        number, attempt = numbered.one()
        await db.execute(
            insert(events).values(
                topic_id=topic_id,
                number=number,
                attempt=attempt,
                kind=kind,
                data=text,
                created_at=time.time(),
            )
        )
