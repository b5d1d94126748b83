"""The main job, step by step, against one instance."""

import secrets
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx

from butterbase.cli.demo import answers, people
from butterbase.cli.demo.instance import Instance
from butterbase.cli.demo.report import Report

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where this is a checkout; installed, it is the packages' directory."""


async def run(instance: Instance, report: Report, *, is_local_provider: bool) -> None:
    """`is_local_provider`: the instance was started with ours. Raises DemoError."""
    made = AsyncExitStack()
    try:
        await _run(instance, report, made, is_local_provider=is_local_provider)
    except BaseException:
        # What then cannot be cleaned up is not what went wrong.
        with suppress(Exception):
            await made.aclose()
        raise


async def _run(
    instance: Instance, report: Report, made: AsyncExitStack, *, is_local_provider: bool
) -> None:
    table = f"demo_{secrets.token_hex(4)}"

    async def make_table() -> tuple[None, str]:
        conn = await made.enter_async_context(people.made_table(instance, table))
        return await people.check_closed(conn, table)

    await report.step("table with a policy", make_table())
    both = await report.step("two users sign up and in", people.sign_up_two(instance))
    made.push_async_callback(people.leave, instance, both)
    await report.step("both subscribe", people.subscribe_both(table, both))
    await report.step("inserts reach their owners", people.insert_one_each(table, both))
    ada, _ = both

    async def ingest() -> tuple[httpx.AsyncClient, str]:
        http = await made.enter_async_context(answers.made_collection(instance, ada.token))
        return http, await answers.ingest(http, REPOSITORY)

    http = await report.step("documents are indexed", ingest())
    passages = await report.step("a question finds its passage", answers.ask(http))

    async def complete() -> tuple[answers.Tokens, str]:
        is_local = is_local_provider or await made.enter_async_context(
            answers.configured_provider(instance)
        )
        tokens, detail = await answers.complete(instance, ada.token, passages, is_local=is_local)
        return tokens, detail + (" (a local upstream, no model)" if is_local else "")

    tokens = await report.step("chat, whole and streamed", complete())
    usage = answers.check_usage(instance, ada.user_id, tokens)
    await report.step("usage is the user's", usage)

    async def clean_up() -> tuple[None, str]:
        await made.aclose()
        return None, _left_behind(instance, both)

    await report.step("clean-up", clean_up())


def _left_behind(instance: Instance, both: tuple[people.Person, people.Person]) -> str:
    if instance.admin_dsn is not None:
        return "only the events of the AI calls stay"
    return f"the events of the AI calls stay, and the users {both[0].email}, {both[1].email}"
