"""Lists of datasets: filtered, sorted, a page at a time, out of one index for each order, and one for counting.

Rows are long – each holds a config – so that to filter or sort them is slow; each of these indexes holds all that a
filter asks for. Only the datasets of the page itself are read as rows.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select, true

from .database import Database
from .schema import DATASET_COLUMNS, Dataset, datasets

ORDERS = {
    "created_at": datasets.c.created_at,
    "last_used_at": datasets.c.last_used_at,
    "bytes": datasets.c.archive_bytes,
}


async def page_of_datasets(database: Database, **wanted: Any) -> tuple[int, list[Dataset]]:
    """How many datasets match, and a page of them; ``wanted`` as `queries` takes it."""
    count, page = queries(**wanted)
    async with database.reading() as db:
        total = (await db.execute(count)).scalar_one()
        return total, [Dataset(**row._mapping) for row in await db.execute(page)]


def queries(
    *,
    name: str | None = None,
    state: str | None = None,
    version: str | None = None,
    pinned: bool | None = None,
    sort: str = "created_at",
    descending: bool = True,
    limit: int,
    offset: int = 0,
) -> tuple[Select[int], Select[Any]]:
    """What counts the datasets that match, and what reads a page of them; ``sort`` is one of `ORDERS`.

    Those without a value to sort by come last when descending, first when ascending.
    """
    wanted = _matching(name, state, version, pinned)
    listed = _matching(name, state, version, pinned, in_order=True)
    key, dataset_id = ORDERS[sort], datasets.c.dataset_id
    order: tuple[ColumnElement[Any], ...] = (key.asc().nulls_first(), dataset_id.asc())
    if descending:
        order = (key.desc().nulls_last(), dataset_id.desc())
    page = select(dataset_id).where(listed).order_by(*order).limit(limit).offset(offset)
    return (
        select(func.count()).select_from(datasets).where(wanted),
        select(*DATASET_COLUMNS).where(dataset_id.in_(page)).order_by(*order),
    )


def _matching(
    name: str | None, state: str | None, version: str | None, pinned: bool | None, *, in_order: bool = False
) -> ColumnElement[bool]:
    """What matches. An expression is no column: by that SQLite is kept from indexes that do not hold all it needs.

    Those of states, and where rows are wanted ``in_order``, of names.
    """
    wanted: ColumnElement[bool] = true()
    if name is not None:
        wanted = and_(wanted, (datasets.c.dataset_name.concat("") if in_order else datasets.c.dataset_name) == name)
    if state is not None:
        wanted = and_(wanted, datasets.c.state.concat("") == state)
    if version is not None:
        wanted = and_(wanted, datasets.c.resolved_version == version)
    if pinned is not None:
        wanted = and_(wanted, datasets.c.pinned == pinned)
    return wanted
