"""What an honest function says to the host never breaks the channel that it is said over."""

import asyncio

import pytest
import uvloop

from tests.functions.calling import Notes, call, running, version_of


async def test_half_of_a_surrogate_pair_is_told_as_other_text_is() -> None:
    notes = Notes()
    notes.answers["queue.send"] = None
    code = r"""
    const half = "\u{1f600}".slice(0, 1), literal = String.raw`\ud83d`;
    console.log(half, literal, "\u{1f600}");
    console.log("x".repeat(8191) + "\u{1f600}");
    await ctx.queue.send("q", { [half]: half });
    throw new Error(half);
    """
    async with running(notes=notes) as runtime:
        outcome = (await call(runtime, code)).outcome
    assert [line.message for line in outcome.logs] == [
        "\ufffd \\ud83d \U0001f600",
        "x" * 8191 + "\ufffd…",
    ]
    assert notes.asked[-1] == (
        "queue.send",
        {"queue": "q", "body": {"\ufffd": "\ufffd"}, "delay_s": None, "key": None},
    )
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.message) == ("function_failed", "Error: \ufffd")


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ("Array.from({ length: 201 }, (_, n) => [`x-${n}`, ''])", "more than 200 headers"),
        ("[['x-long', 'x'.repeat(1e6)]]", "more than 65536 bytes of headers"),
    ],
)
async def test_headers_beyond_their_limit_are_told(headers: str, told: str) -> None:
    async with running() as runtime:
        done = await call(runtime, f"return new Response('', {{ headers: {headers} }})")
    failure = done.outcome.failure
    assert failure is not None
    assert failure.code == "function_response_invalid"
    assert told in failure.message


def test_what_is_written_to_a_process_that_is_gone_is_dropped() -> None:
    async def scenario() -> None:
        async with running() as runtime:
            await call(runtime, version_of("return new Response()"))
            (guest,) = runtime._pool.guests_of("main")
            assert guest._transport is not None
            guest._transport.abort()
            for _ in range(5):  # turns of the loop: it hears of the channel's end, not of its own
                await asyncio.sleep(0)
            assert guest.is_retired
            assert not guest.is_dead
            guest.write(b"nobody is there")

    uvloop.run(scenario())
