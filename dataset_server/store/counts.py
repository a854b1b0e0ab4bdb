"""How many there are of what: for metrics."""

from sqlalchemy import func, select

from .database import Database
from .schema import datasets


async def datasets_by_state(database: Database) -> dict[str, int]:
    """Number of datasets in each state that any is in."""
    async with database.reading() as db:
        rows = await db.execute(select(datasets.c.state, func.count().label("datasets")).group_by(datasets.c.state))
        return {row.state: row.datasets for row in rows}
