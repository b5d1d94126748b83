import asyncio
from typing import Any

import pytest

from butterbase.api.auth.resources import evenly
from butterbase.api.auth.resources.evenly import TICK_S


class Resource:
    @evenly.evenly
    async def on_post(self, req: Any, resp: Any) -> None:
        await asyncio.sleep(req)
        if resp:
            raise ValueError(resp)


async def time_of(work_s: Any, resp: Any = None) -> float:
    time = asyncio.get_running_loop().time
    called_s = time()
    if resp:
        with pytest.raises(ValueError, match=resp):
            await Resource().on_post(work_s, resp)
    else:
        await Resource().on_post(work_s, resp)
    return time() - called_s


@pytest.mark.parametrize("refusal", [None, "no"])
async def test_answers_and_refusals_go_out_at_ticks(refusal: str | None) -> None:
    for work_s, tick_count in ((0, 1), (TICK_S / 2, 1), (TICK_S * 1.2, 2)):
        assert await time_of(work_s, refusal) >= tick_count * TICK_S


@pytest.mark.parametrize("path", ["otp", "magiclink", "recover", "resend", "verify"])
async def test_what_knows_addresses_answers_evenly(api: Any, path: str) -> None:
    time = asyncio.get_running_loop().time
    called_s = time()
    body = {"email": "nobody@example.com", "type": "signup", "token": "123456"}
    await api.client.post(f"/auth/v1/{path}", json=body, headers=api.anon)
    assert time() - called_s >= TICK_S
