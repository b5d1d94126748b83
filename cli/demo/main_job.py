"""The main job, step by step, against one instance."""

import secrets
from contextlib import AsyncExitStack
from pathlib import Path

from butterbase.cli.demo import answers, people
from butterbase.cli.demo.instance import Instance
from butterbase.cli.demo.report import Report

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where this is a checkout; installed, it is the packages' directory."""


async def run(instance: Instance, report: Report, *, is_local_provider: bool) -> None:
    """`is_local_provider`: the instance was started with ours. Raises DemoError."""
    table = f"demo_{secrets.token_hex(4)}"
    async with AsyncExitStack() as made:

        async def make_table() -> tuple[None, str]:
            conn = await made.enter_async_context(people.made_table(instance, table))
            return await people.check_closed(conn, table)

        await report.step("table with a policy", make_table())
        both = await report.step("two users sign up and in", people.sign_up_two(instance))
        made.push_async_callback(people.leave, both)
        await report.step("both subscribe", people.subscribe_both(table, both))
        await report.step("inserts reach their owners", people.insert_one_each(table, both))
        ada, _ = both
        http = await made.enter_async_context(answers.made_collection(instance, ada.token))
        await report.step("documents are indexed", answers.ingest(http, REPOSITORY))
        passages = await report.step("a question finds its passage", answers.ask(http))

        async def complete() -> tuple[answers.Tokens, str]:
            is_local = is_local_provider or await made.enter_async_context(
                answers.configured_provider(instance)
            )
            tokens, detail = await answers.complete(
                instance, ada.token, passages, is_local=is_local
            )
            return tokens, detail + (" (an extractive upstream, no model)" if is_local else "")

        tokens = await report.step("chat, whole and streamed", complete())
        await report.step("usage is the user's", answers.check_usage(instance, ada.user_id, tokens))

        async def clean_up() -> tuple[None, str]:
            await made.aclose()
            return None, await people.remove_users(instance, both)

        await report.step("clean-up", clean_up())
