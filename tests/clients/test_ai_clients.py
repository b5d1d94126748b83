"""Unmodified clients of OpenAI and Anthropic, in Python and JavaScript, and a server as it runs."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import psycopg
import pytest
from anthropic import Anthropic
from openai import OpenAI

from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from tests.ai.upstream import Upstream
from tests.cli.processes import free_port, wait_until
from tests.clients.conftest import JS, is_ready
from tests.clients.library import Library
from tests.clients.models import models
from tests.installation import Installation
from tests.processes import running

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@dataclass(frozen=True)
class Served:
    """An api worker with a provider behind it."""

    library: Library
    upstream: Upstream

    @property
    def url(self) -> str:
        return self.library.url

    @property
    def service_key(self) -> str:
        return self.library.keys.service_role

    def events(self) -> list[Any]:
        with psycopg.connect(self.library.installation.control.dsn) as conn:
            return conn.execute(
                "select user_id::text, data from butterbase.events where type = 'ai.call'"
                " order by id"
            ).fetchall()


@pytest.fixture(scope="module")
def served(
    shared_installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    port, directory = free_port(), tmp_path_factory.mktemp("ai")
    keys = keys_of(
        shared_installation.cluster, "main", shared_installation.app.created_at, ApiSettings()
    )
    url = f"http://127.0.0.1:{port}"
    with (
        models() as upstream,
        running(
            "api", shared_installation, directory, port=port, ai_base_url=upstream.base_url
        ) as process,
    ):
        wait_until(lambda: is_ready(f"{url}/healthz", process), "the api worker answers")
        yield Served(Library(shared_installation, url, keys), upstream)


def say(served: Served, base_url: str, key: str | None = None) -> str | None:
    with OpenAI(api_key=key or served.service_key, base_url=base_url, max_retries=0) as client:
        return (
            client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content
        )


@pytest.mark.parametrize("prefix", ["/v1/main", "/v1/main/v1", "/v1", ""])
def test_openais_clients_find_the_app_at_each_of_its_urls(served: Served, prefix: str) -> None:
    assert say(served, served.url + prefix) == "Hello!"


@pytest.mark.parametrize("prefix", ["/v1/main", ""])
def test_anthropics_clients_find_it_too_with_their_own_header(served: Served, prefix: str) -> None:
    with Anthropic(api_key=served.service_key, base_url=served.url + prefix) as client:
        message = client.messages.create(model="m", max_tokens=9, messages=MESSAGES)
        assert message.content[0].type == "text"
        with client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as events:
            assert "".join(events.text_stream) == "Hello"


def test_the_origins_own_path_is_the_first_apps_chat(served: Served) -> None:
    for path in ("/ai/chat", "/v1/main/ai/chat"):
        answer = httpx.post(
            served.url + path,
            json={"model": "m", "messages": MESSAGES},
            headers={"apikey": served.service_key},
        )
        assert answer.json()["choices"][0]["message"]["content"] == "Hello!"


def test_a_user_calls_with_the_token_of_data_and_is_named_in_the_event(served: Served) -> None:
    token = served.library.sign_up("ai-user@example.com")
    assert say(served, f"{served.url}/v1/main", token) == "Hello!"
    [(user_id,)] = served.library.sql(
        "select id::text from auth.users where email = 'ai-user@example.com'"
    )
    wait_until(lambda: user_id in [user for user, _ in served.events()], "the event is written")


@pytest.mark.parametrize(("scope", "is_open"), [("ai", True), ("data", False), ("admin", False)])
def test_an_app_key_needs_the_scope(served: Served, scope: str, is_open: bool) -> None:
    made = httpx.post(
        f"{served.url}/keys",
        json={"name": "k", "scopes": [scope]},
        headers={"apikey": served.service_key},
    )
    key = made.json()["key"]
    if is_open:
        assert say(served, f"{served.url}/v1/main", key) == "Hello!"
        wait_until(
            lambda: made.json()["id"] in [data["key_id"] for _, data in served.events()],
            "the event names the key",
        )
    else:
        with pytest.raises(openai.PermissionDeniedError, match="scope ai"):
            say(served, f"{served.url}/v1/main", key)


def test_strangers_are_refused_in_the_clients_own_form(served: Served) -> None:
    for key in ("bb_unknown", "not.a.token"):
        with pytest.raises(openai.AuthenticationError):
            say(served, f"{served.url}/v1/main", key)
        with (
            Anthropic(api_key=key, base_url=served.url, max_retries=0) as client,
            pytest.raises(anthropic.AuthenticationError) as error,
        ):
            client.messages.create(model="m", max_tokens=9, messages=MESSAGES)
        assert isinstance(error.value.body, dict)
        assert error.value.body["type"] == "error"
    with pytest.raises(openai.PermissionDeniedError, match="nonymous"):
        say(served, f"{served.url}/v1/main", served.library.keys.anon)
    with pytest.raises(openai.NotFoundError):
        say(served, f"{served.url}/v1/nowhere")


def test_the_clients_in_javascript_work(node: str, served: Served) -> None:
    done = subprocess.run(
        [node, "--test", "--test-reporter=spec", "ai.test.js"],
        cwd=JS,
        env={
            "PATH": os.environ["PATH"],
            "AI_URL": served.url,
            "SERVICE_ROLE_KEY": served.service_key,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
