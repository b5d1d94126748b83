"""The providers' own clients, over a transport that answers with our bytes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
from google import genai
from google.genai.types import HttpOptions

Respond = Callable[[bytes], tuple[int, dict[str, str], bytes]]
"""A request's body → status, headers and body of its answer."""

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


def always(body: bytes, headers: dict[str, str], status: int = 200) -> Respond:
    return lambda _request: (status, headers, body)


def _transport(library: Any, respond: Respond) -> Any:
    def handle(request: Any) -> Any:
        status, headers, body = respond(request.read())
        return library.Response(status, headers=headers, content=body)

    return library.MockTransport(handle)


@contextlib.contextmanager
def openai_client(respond: Respond) -> Iterator[openai.OpenAI]:
    with httpx2.Client(transport=_transport(httpx2, respond)) as http:
        yield openai.OpenAI(
            api_key="k", base_url="http://gateway.test/v1", http_client=http, max_retries=0
        )


@contextlib.contextmanager
def anthropic_client(respond: Respond) -> Iterator[anthropic.Anthropic]:
    with httpx2.Client(transport=_transport(httpx2, respond)) as http:
        yield anthropic.Anthropic(
            api_key="k", base_url="http://gateway.test", http_client=http, max_retries=0
        )


@contextlib.contextmanager
def gemini_client(respond: Respond) -> Iterator[genai.Client]:
    with httpx.Client(transport=_transport(httpx, respond)) as http:
        yield genai.Client(api_key="k", http_options=HttpOptions(httpx_client=http))
