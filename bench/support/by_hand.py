"""What a Python team writes by hand: FastAPI, psycopg's pool, PyJWT, Pydantic, row-level security.

As good as its parts allow: uvloop and httptools, connections as many as the api has, statements
that psycopg prepares, rows without ORM, answers serialised by Pydantic's core.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated
from uuid import UUID

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException
from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

DSN, SECRET = "BENCH_DSN", "BENCH_JWT_SECRET"
CONNECTION_COUNT = 10  # as the api's db_connections


class Note(BaseModel):
    id: int
    user_id: UUID
    title: str
    is_done: bool
    created_at: datetime


class Project(BaseModel):
    id: int
    name: str


class Task(BaseModel):
    id: int
    title: str
    project: Project


class NewReading(BaseModel):
    sensor: int
    value: float
    note: str | None = None


class Reading(NewReading):
    id: int
    user_id: UUID


class TaskCount(BaseModel):
    of_project: int


pool = AsyncConnectionPool(
    os.environ.get(DSN, ""), min_size=CONNECTION_COUNT, max_size=CONNECTION_COUNT, open=False
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    await pool.open(wait=True)
    yield
    await pool.close()


app = FastAPI(lifespan=lifespan)


async def claims_of(authorization: Annotated[str, Header()]) -> dict[str, object]:
    token = authorization.removeprefix("Bearer ")
    try:
        return jwt.decode(token, os.environ[SECRET], ["HS256"], options={"verify_aud": False})
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "the token is not valid") from error


Claims = Annotated[dict[str, object], Depends(claims_of)]


@asynccontextmanager
async def transaction(claims: dict[str, object]) -> AsyncIterator[AsyncConnection]:
    """A transaction as the caller, committed before the answer is sent."""
    async with pool.connection() as conn, conn.transaction():
        await conn.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
            [claims["role"], json.dumps(claims)],
        )
        yield conn


@app.get("/notes/{note_id}")
async def read_note(note_id: int, claims: Claims) -> Note:
    async with transaction(claims) as conn, conn.cursor(row_factory=class_row(Note)) as cursor:
        await cursor.execute("select * from notes where id = %s", [note_id])
        note = await cursor.fetchone()
    if note is None:
        raise HTTPException(404)
    return note


@app.get("/tasks")
async def read_tasks(claims: Claims, last: int, limit: int = 100) -> list[Task]:
    async with transaction(claims) as conn:
        cursor = await conn.execute(
            "select t.id, t.title, p.id, p.name from tasks t join projects p on p.id = t.project_id"
            " where not t.is_done and t.id <= %s order by t.id desc limit %s",
            [last, limit],
        )
        rows = await cursor.fetchall()
    return [
        Task(id=task_id, title=title, project=Project(id=project_id, name=name))
        for task_id, title, project_id, name in rows
    ]


@app.post("/readings", status_code=201)
async def add_reading(reading: NewReading, claims: Claims) -> Reading:
    async with transaction(claims) as conn, conn.cursor(row_factory=class_row(Reading)) as cursor:
        await cursor.execute(
            "insert into readings (sensor, value, note) values (%s, %s, %s) returning *",
            [reading.sensor, reading.value, reading.note],
        )
        added = await cursor.fetchone()
    assert added is not None
    return added


@app.post("/readings/bulk", status_code=201)
async def add_readings(readings: list[NewReading], claims: Claims) -> None:
    async with transaction(claims) as conn:
        # COPY is not to be had where row-level security holds.
        await conn.execute(
            "insert into readings (sensor, value, note)"
            " select * from unnest(%s::int[], %s::float8[], %s::text[])",
            [
                [reading.sensor for reading in readings],
                [reading.value for reading in readings],
                [reading.note for reading in readings],
            ],
        )


@app.post("/open-task-count")
async def count_open_tasks(asked: TaskCount, claims: Claims) -> int:
    async with transaction(claims) as conn, conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("select open_task_count(%s)", [asked.of_project])
        count: int = await cursor.fetchone() or 0
    return count
