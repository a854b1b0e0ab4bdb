"""What a cached request is compared with: a bare aiohttp view that parses JSON, reads one row of SQLite and answers.

python -m benchmarks.service.bare DATABASE aiosqlite|sqlite3

It reads as most do, by aiosqlite, which hands each read to a thread and back, or as fast as can be, on its loop's own.
"""

import sqlite3
import sys

import aiosqlite
from aiohttp import web


def main() -> None:
    address, on_loop = f"file:{sys.argv[1]}?mode=ro", sys.argv[2] == "sqlite3"

    async def view(request: web.Request) -> web.Response:
        body = await request.json()
        query = "SELECT topic_id, state, dataset_id, attempt FROM topics WHERE dataset_name = ? LIMIT 1"
        if on_loop:
            row = request.app["database"].execute(query, (body["dataset_name"],)).fetchone()
        else:
            async with request.app["database"].execute(query, (body["dataset_name"],)) as rows:
                row = await rows.fetchone()
        return web.json_response(dict(zip(("topic_id", "state", "dataset_id", "attempt"), row, strict=True)))

    async def database(app: web.Application):
        if on_loop:
            app["database"] = sqlite3.connect(address, uri=True)
            yield
            app["database"].close()
        else:
            async with aiosqlite.connect(address, uri=True) as app["database"]:
                yield

    app = web.Application()
    app.cleanup_ctx.append(database)
    app.router.add_post("/", view)
    web.run_app(app, host="127.0.0.1", port=0, access_log=None, print=lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
