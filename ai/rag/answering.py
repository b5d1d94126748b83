"""The answer to a question: passages, put in order, and what a model says of them.

As a stream: `event: passages`, then `text` and `citation` as they come, and `done` or `error`.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.calls.call import Header
from butterbase.ai.calls.passage import Answer
from butterbase.ai.http.connection import EVENT_STREAM, JSON
from butterbase.ai.rag.asking import Models, Said
from butterbase.ai.rag.prompting import (
    Citation,
    Citations,
    Passage,
    ask_for_answer,
    ask_for_order,
    read_order,
    shown,
)
from butterbase.ai.rag.search import TOP_K_MAX, Question
from butterbase.ai.wire.form import NULL
from butterbase.sql.errors import ButterbaseError

RERANKED_PER_PASSAGE: Final = 4
RERANKED_MIN: Final = 20
RERANKED_MAX: Final = 50

_RAWS = msgspec.json.Decoder(list[Raw])
_PASSAGE = msgspec.json.Decoder(Passage)


class Synthesis(Struct, frozen=True, rename="camel"):
    text: str
    citations: list[Citation]
    model: str | None = None
    usage: Raw = NULL


class Found(Struct, frozen=True):
    """The body of an answer."""

    passages: Raw | list[Raw]
    reranked: bool | None = None
    answer: Synthesis | None = None


def candidate_count(question: Question) -> int:
    """How many passages to look for."""
    if not question.rerank:
        return question.top_k
    wanted = max(RERANKED_MIN, RERANKED_PER_PASSAGE * question.top_k)
    return min(TOP_K_MAX, max(question.top_k, min(RERANKED_MAX, wanted)))


async def reply(question: Question, found: bytes, models: Models | None) -> Answer:
    """`models` is needed where something is asked of one. Raises AiError, ButterbaseError."""
    if models is None:
        return Answer(200, [JSON], b'{"passages":' + found + b"}")
    raws, headers = _RAWS.decode(found), list[Header]()
    reranked: bool | None = None
    if question.rerank:
        raws, reranked, headers = await _put_in_order(question, raws, models)
        raws = raws[: question.top_k]
    passages = shown([_PASSAGE.decode(raw) for raw in raws])
    if question.synthesize and question.stream:
        return await _stream(question, Found(raws, reranked), passages, models)
    answer = None
    if question.synthesize:
        answer, headers = await _synthesize(question, passages, models)
    elif not question.rerank:
        raise AssertionError("a model is asked for nothing")
    body = _encode(Found(raws, reranked, answer), with_answer=question.synthesize)
    return Answer(200, [JSON, *headers], body)


async def _put_in_order(
    question: Question, raws: list[Raw], models: Models
) -> tuple[list[Raw], bool, list[Header]]:
    """False: they are as the search had them, since the model said nothing of use."""
    if len(raws) < 2:
        return raws, False, []
    passages = [_PASSAGE.decode(raw) for raw in raws]
    asked = await models.ask(ask_for_order(question.query, passages))
    assert isinstance(asked.said, Said)
    order = read_order(asked.said.text, len(raws))
    if order is None:
        return raws, False, asked.headers
    return [raws[place] for place in order], True, asked.headers


async def _synthesize(
    question: Question, passages: Sequence[Passage], models: Models
) -> tuple[Synthesis | None, list[Header]]:
    """None without passages: there is nothing to answer from, and nothing is asked."""
    if not passages:
        return None, []
    asked = await models.ask(ask_for_answer(question.query, passages))
    said = asked.said
    assert isinstance(said, Said)
    citations = Citations(passages)
    list(citations.feed(said.text))
    return Synthesis(said.text, citations.found, said.model, said.usage), asked.headers


async def _stream(
    question: Question, found: Found, passages: Sequence[Passage], models: Models
) -> Answer:
    if not passages:
        return Answer(200, [EVENT_STREAM], _event("passages", found) + _event("done", _Done([])))
    asked = await models.ask_for_stream(ask_for_answer(question.query, passages))
    assert not isinstance(asked.said, Said)
    parts = _parts(found, passages, asked.said)
    # What has not begun cannot be closed, and the call would go on.
    await anext(parts)
    return Answer(200, [EVENT_STREAM, *asked.headers], parts)


class _Text(Struct, frozen=True):
    text: str


class _Done(Struct, frozen=True):
    citations: list[Citation]
    model: str | None = None
    usage: Raw = NULL


class _Problem(Struct, frozen=True):
    code: str
    message: str


class _Failed(Struct, frozen=True):
    error: Raw


async def _parts(
    found: Found, passages: Sequence[Passage], said: "AsyncGenerator[Said, None]"
) -> "AsyncGenerator[bytes, None]":
    citations, model, usage = Citations(passages), None, NULL
    try:
        yield b""
        yield _event("passages", found)
        async for piece in said:
            if piece.error != NULL:
                yield _event("error", _Failed(piece.error))
                return
            model = piece.model or model
            usage = piece.usage if piece.usage != NULL else usage
            if piece.text:
                yield _event("text", _Text(piece.text))
                for citation in citations.feed(piece.text):
                    yield _event("citation", citation)
        yield _event("done", _Done(citations.found, model, usage))
    except ButterbaseError as error:
        yield _event(
            "error", _Failed(Raw(msgspec.json.encode(_Problem(error.code, error.message))))
        )
    finally:
        await said.aclose()


def _encode(found: Found, *, with_answer: bool) -> bytes:
    body: dict[str, object] = {"passages": found.passages}
    if found.reranked is not None:
        body["reranked"] = found.reranked
    if with_answer:
        body["answer"] = found.answer
    return msgspec.json.encode(body)


def _event(name: str, data: Struct) -> bytes:
    if isinstance(data, Found):
        encoded = _encode(data, with_answer=False)
    else:
        encoded = msgspec.json.encode(data)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encoded)
