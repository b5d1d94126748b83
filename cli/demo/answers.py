"""The part of the demo with documents and a model: ingest, ask, complete, and what it used."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from msgspec import Struct
from openai import APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from butterbase.cli.demo import upstream
from butterbase.cli.demo.errors import DemoError
from butterbase.cli.demo.instance import Instance
from butterbase.cli.demo.report import hold
from butterbase.sql.apps import FIRST_APP

READY_WITHIN_S = 120.0
COUNTED_WITHIN_S = 15.0
POLL_S = 0.05

DOCUMENTS_BYTES_MAX = 96 * 1024
"""Of all documents; those past it are left out, so that the demo stays short."""

ABOUT = Path(__file__).with_name("about.md")
ABOUT_TITLE = "About the demo"
QUESTION = "In the demo, why would the first row have arrived before the barrier's second row?"
PHRASE = "The log has one order"
"""In the passage that answers the question."""

PREFIX = f"/v1/{FIRST_APP}"


class Page(Struct, frozen=True):
    title: str
    text: str


class Tokens(Struct, frozen=True):
    prompt: int
    completion: int


def read_pages(repository: Path) -> tuple[list[Page], int]:
    """The project's pages, that of the demo first, and how many there was no room for."""
    files = [ABOUT]
    if (repository / "pyproject.toml").exists():
        files += [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]
    pages, left_out, size = [], 0, 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        if size + len(text.encode()) > DOCUMENTS_BYTES_MAX:
            left_out += 1
            continue
        size += len(text.encode())
        title = ABOUT_TITLE if file == ABOUT else str(file.relative_to(repository))
        pages.append(Page(title, text))
    return pages, left_out


@asynccontextmanager
async def made_collection(instance: Instance, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the user's new, private collection, which is deleted at the end."""
    name = f"demo-{secrets.token_hex(4)}"
    headers = {"apikey": instance.anon_key, "Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=f"{instance.url}{PREFIX}/rag", headers=headers, timeout=60, trust_env=False
    ) as http:
        _read(await http.post("collections", json={"name": name}))
        try:
            http.base_url = http.base_url.join(f"{name}/")
            yield http
        finally:
            _read(await http.delete(f"../collections/{name}"))


async def ingest(http: httpx.AsyncClient, repository: Path) -> str:
    """Add all pages and wait until each can be found; what was added. Raises DemoError."""
    pages, left_out = read_pages(repository)
    waiting = {}
    for page in pages:
        answer = await http.post("documents", json={"title": page.title, "text": page.text})
        waiting[_read(answer)["id"]] = page.title
    chunk_count = 0
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while waiting:
                for document_id, title in list(waiting.items()):
                    document = _read(await http.get(f"documents/{document_id}"))
                    hold(
                        document["status"] not in ("failed", "dead"),
                        f"{title}: {document['error']}",
                    )
                    if document["status"] == "ready":
                        chunk_count += document["progress"]["chunks"]
                        del waiting[document_id]
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise DemoError(f"not ready in {READY_WITHIN_S:.0f} s: {[*waiting.values()]}") from None
    whose = "the page that the demo carries" if len(pages) == 1 else f"{len(pages)} pages"
    beyond = f"; {left_out} more did not fit" if left_out else ""
    return f"{whose}, {chunk_count} passages ready{beyond}"


async def ask(http: httpx.AsyncClient) -> tuple[list[str], str]:
    """The passages nearest to the question, the right one first. Raises DemoError."""
    answer = _read(await http.post("query", json={"query": QUESTION, "topK": 4}))
    passages = answer["passages"]
    hold(bool(passages), "the question found no passage")
    first = passages[0]
    text = _unwrapped(first["content"])
    hold(
        first["title"] == ABOUT_TITLE and PHRASE in text,
        f"{first['title']!r} came first, with {text[:80]!r}",
    )
    contents = [passage["content"] for passage in passages]
    return contents, f"{first['heading']!r}, cosine {first['similarity']:.2f}"


async def complete(
    instance: Instance, token: str, passages: list[str], *, is_local: bool
) -> tuple[Tokens, str]:
    """One whole and one streamed completion, as the user. Raises DemoError."""
    model = upstream.MODEL if is_local else ""  # without a name it is the configured default
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Answer from these passages.\n\n" + "\n\n".join(passages)},
        {"role": "user", "content": QUESTION},
    ]
    async with AsyncOpenAI(
        base_url=f"{instance.url}{PREFIX}", api_key=token, max_retries=0, timeout=120
    ) as client:
        try:
            whole = await client.chat.completions.create(model=model, messages=messages)
            stream = await client.chat.completions.create(
                model=model,
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
        except APIStatusError as error:
            raise DemoError(error.message, hint=_hint(error)) from error
    text = whole.choices[0].message.content or ""
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    hold(bool(text), "the completion is empty")
    hold(bool(streamed), "the streamed completion is empty")
    if is_local:
        hold(text == streamed, f"streamed, the answer is another: {streamed!r}, not {text!r}")
        hold(any(text in _unwrapped(p) for p in passages), f"{text!r} is in no passage")
    usages = [u for u in (whole.usage, *(c.usage for c in chunks)) if u is not None]
    hold(len(usages) == 2, f"usage was told {len(usages)} times, not once for each call")
    tokens = Tokens(sum(u.prompt_tokens for u in usages), sum(u.completion_tokens for u in usages))
    return tokens, f"{whole.model}: {text[:200]!r}"


def _unwrapped(text: str) -> str:
    """Without its line breaks."""
    return " ".join(text.split())


def _hint(error: APIStatusError) -> str | None:
    body: Any = error.body
    hint = body.get("hint") if isinstance(body, dict) else None
    return None if hint is None else str(hint)


async def check_usage(instance: Instance, user_id: str, tokens: Tokens) -> tuple[None, str]:
    """Wait until the projection has counted both calls as the user's. Raises DemoError."""
    used: dict[str, Any] = {}
    wanted = {
        "requests": 2,
        "failures": 0,
        "promptTokens": tokens.prompt,
        "completionTokens": tokens.completion,
    }
    async with httpx.AsyncClient(headers=instance.service, timeout=30, trust_env=False) as http:
        try:
            async with asyncio.timeout(COUNTED_WITHIN_S):
                while not wanted.items() <= used.items():
                    url = f"{instance.url}{PREFIX}/ai/usage"
                    report = _read(await http.get(url, params={"groupBy": "user"}))
                    used = next((g for g in report["groups"] if g["key"] == user_id), {})
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise DemoError(
                f"the user's usage is {used} after {COUNTED_WITHIN_S:.0f} s, not {wanted}"
            ) from None
    return None, f"2 calls, {tokens.prompt} + {tokens.completion} tokens, the user's"


@asynccontextmanager
async def configured_provider(instance: Instance) -> AsyncIterator[bool]:
    """A provider for a running instance; whether it is the local one, taken back at the end."""
    async with httpx.AsyncClient(
        base_url=f"{instance.url}{PREFIX}", headers=instance.service, timeout=30, trust_env=False
    ) as http:
        listing = await http.get("models")
        if not _is_missing(listing):
            yield False
            return
        # Without a base URL there is nothing that a key could be of: null takes none away.
        before = _read(await http.get("ai/config"))
        hold(before["byokKey"] is None, "the app has a provider's key and no base URL for it")
        with upstream.running_upstream() as url:
            _read(await http.put("ai/config", json={"baseUrl": url}))
            try:
                yield True
            finally:
                _read(await http.put("ai/config", json={"baseUrl": None}))


def _is_missing(answer: httpx.Response) -> bool:
    if answer.is_success or not answer.headers.get("content-type", "").startswith("application/"):
        return False
    error = answer.json().get("error") or {}
    return bool(error.get("code") == "ai_provider_missing")


def _read(answer: httpx.Response) -> Any:
    """The body of a success. Raises DemoError."""
    if answer.is_success:
        return answer.json() if answer.content else None
    raise DemoError(
        f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}"
    )
