"""Plans: what apps may spend that nobody chose one for."""

import pytest

from butterbase.ai.money.config import PlanName
from butterbase.ai.settings import AiSettings
from butterbase.api.settings import ApiSettings
from tests.ai.upstream import COMPLETION, answer, running_upstream
from tests.api.conftest import running
from tests.installation import Installation

QUESTION = {
    "model": "gpt-4",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 8000,  # which may cost half a dollar
}


@pytest.mark.parametrize(("plan", "status"), [("free", 402), ("pro", 200), ("enterprise", 200)])
async def test_an_app_without_a_plan_has_the_one_of_the_settings(
    installation: Installation, plan: PlanName, status: int
) -> None:
    async with running_upstream() as upstream:
        upstream.script = answer(200, COMPLETION)
        ai = AiSettings(
            ai_base_url=upstream.base_url, ai_private_base_urls=True, ai_default_plan=plan
        )
        async with running(installation, ApiSettings(), ai=ai) as api:
            config = await api.client.get("/v1/main/ai/config", headers=api.service)
            assert config.json()["plan"]["plan"] == plan
            told = await api.client.post(
                "/v1/main/chat/completions", json=QUESTION, headers=api.service
            )
        assert told.status_code == status, told.text
        assert len(upstream.received) == (status == 200)
