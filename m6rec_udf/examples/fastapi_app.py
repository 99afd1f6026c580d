"""A FastAPI service over one file, with a cursor for each request: copy it and make it yours.

    M6REC_FILE=shop.duckdb uvicorn --factory m6rec_udf.examples.fastapi_app:make --port 8000

One process owns the file (``--workers 1``); for more processes serve read-only copies (docs/production.md). Routes are
plain ``def``: FastAPI runs them on its threads, and a query holds up nobody else.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import duckdb
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from pydantic import BaseModel

import m6rec_udf as m6
from m6rec_udf.publish import require_built


class Reaction(BaseModel):
    """What somebody did about something shown."""

    impression_id: str
    event_type: Literal["click", "purchase", "dismiss"] = "click"


def cursor_of(request: Request) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor for this request alone."""
    with request.app.state.con.cursor() as cursor:
        yield cursor


Cursor = Annotated[duckdb.DuckDBPyConnection, Depends(cursor_of)]


def make(con: duckdb.DuckDBPyConnection | None = None) -> FastAPI:
    """The app over ``con``; None opens the file that M6REC_FILE names."""

    @asynccontextmanager
    async def open_file(app: FastAPI) -> AsyncIterator[None]:
        app.state.con = con or m6.connect(os.environ["M6REC_FILE"], encoder=os.environ.get("M6REC_ENCODER"))
        require_built(app.state.con)
        yield
        if con is None:
            app.state.con.close()

    app = FastAPI(title="m6rec", lifespan=open_file)

    @app.get("/people/{user_id}/recommendations")
    def recommendations(user_id: str, cursor: Cursor, k: Annotated[int, Query(ge=1, le=100)] = 10) -> Any:
        """The best list; nothing is logged."""
        return _rows(cursor.execute("from m6.recommend($user, k := $k)", {"user": user_id, "k": k}))

    @app.post("/people/{user_id}/lists")
    def show(user_id: str, cursor: Cursor, k: Annotated[int, Query(ge=1, le=100)] = 10) -> Any:
        """A drawn list, logged with its propensities: show exactly this."""
        return _rows(
            cursor.execute(
                "insert into m6.impressions by name from m6.serve($user, k := $k) "
                "returning impression_id, item_id, rank, strategy, propensity",
                {"user": user_id, "k": k},
            )
        )

    @app.post("/reactions", status_code=201)
    def react(reaction: Reaction, cursor: Cursor) -> dict[str, str]:
        """A reaction; it counts in the person's next list."""
        known = cursor.execute("select 1 from m6.impressions where impression_id = ?", [reaction.impression_id])
        if not known.fetchall():
            raise HTTPException(404, f"there is no impression {reaction.impression_id}")
        cursor.execute(
            "insert into m6.feedback by name select $impression_id as impression_id, $event_type as event_type",
            reaction.model_dump(),
        ).fetchall()
        return {"status": "logged"}

    return app


def _rows(result: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
