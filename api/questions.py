"""What questions to collections and indexes need of the web edge: who asks, and how errors look."""

import logging

import msgspec

from butterbase.ai.calls.passage import Answer
from butterbase.ai.errors import AiError
from butterbase.ai.http import problems as ai_problems
from butterbase.ai.http.connection import JSON, Headers
from butterbase.ai.rag.search import Asker
from butterbase.api import problems
from butterbase.api.apps import Apps
from butterbase.api.models_admission import ModelsAdmission
from butterbase.sql.claims import ANON

_log = logging.getLogger(__name__)


class QuestionsAdmission:
    """The query endpoint's `admit` for the apps of an installation."""

    def __init__(self, apps: Apps, models: ModelsAdmission) -> None:
        self._apps = apps
        self._models = models

    async def __call__(self, app_id: str, headers: Headers) -> Asker:
        """Raises UnknownAppError, and what `verify_caller` does."""
        claims = await self._models(app_id, headers)
        return Asker(app_id, (await self._apps.find(app_id)).data, claims)


def render(error: Exception, asker: Asker | None) -> Answer:
    """As a resource's error is answered; errors of models have their own statuses."""
    is_anonymous = asker is None or asker.claims.role == ANON
    rendered = problems.render(error, is_anonymous=is_anonymous)
    status, headers = rendered.status, rendered.headers
    if isinstance(error, AiError):
        told = ai_problems.wire_error(error)
        status = told.status
        headers = [(name.encode(), value.encode()) for name, value in told.headers.items()]
    if status >= 500:
        is_foreseen = rendered.problem != problems.BUG
        _log.warning("a question failed: %s", error, exc_info=None if is_foreseen else error)
    return Answer(status, [JSON, *headers], msgspec.json.encode(rendered.problem))
