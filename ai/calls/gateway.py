"""One call to a model, from its request to its event.

It runs in the task of its request, and ends in one `ai.call` event, whatever becomes of the client
or the provider: read → guards → routes → cache → admission → attempts → event → the answer's end.
A worker that is killed leaves its calls to the sweeper (projections/sweeper.py).
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Iterable
from decimal import Decimal

from msgspec.structs import replace

from butterbase.ai.calls.admitting import Admissions
from butterbase.ai.calls.asked import Asked, Endpoint, check_model
from butterbase.ai.calls.attempts import Attempts, Begun
from butterbase.ai.calls.call import Call, Caller, Status
from butterbase.ai.calls.passage import NOTHING_GIVEN, Answer, Client, Given, Passage
from butterbase.ai.calls.recording import Recorder
from butterbase.ai.calls.refusals import tell_call
from butterbase.ai.calls.relay import Relay
from butterbase.ai.config.configs import AiConfigs, AppConfig
from butterbase.ai.embedders.errors import EmbeddingMismatchError
from butterbase.ai.errors import (
    AccountingError,
    AiError,
    AiInternalError,
    AiStoppingError,
    AnonymousAiDeniedError,
    ClientLeftError,
    ModelDeniedError,
    ModelMissingError,
    UpstreamTimeoutError,
)
from butterbase.ai.metering.charging import Tariff
from butterbase.ai.metering.counting import read_answer, read_stream
from butterbase.ai.metering.metering import meter_unanswered, meter_whole
from butterbase.ai.money.estimate import COMPLETION_TOKENS_DEFAULT
from butterbase.ai.money.ledger import ConfigChangedError, Ledger
from butterbase.ai.providers.exchange import Guarding, encode_whole
from butterbase.ai.providers.reading import Whole
from butterbase.ai.providers.upstream import Upstream
from butterbase.ai.routing.config import MODEL_LENGTH_MAX
from butterbase.ai.routing.health import Health
from butterbase.ai.routing.resolution import Chain
from butterbase.ai.seams import NO_LOOKUP, NO_SEAMS, Asking, Fresh, Kept, Lookup, Seams
from butterbase.ai.settings import AiSettings
from butterbase.ai.wire.form import NULL, Usage
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError

CHANGE_COUNT_MAX = 10
"""Of changes to an app's configuration while one call is being admitted."""

_JSON = b"application/json"
_EVENT_STREAM = b"text/event-stream; charset=utf-8"

_log = logging.getLogger(__name__)


class Gateway:
    """Calls to the providers of all apps, for one worker."""

    def __init__(
        self,
        settings: AiSettings,
        configs: AiConfigs,
        ledger: Ledger,
        *,
        seams: Seams = NO_SEAMS,
    ) -> None:
        self.settings = settings
        self.configs = configs
        self.upstream = Upstream(settings)
        self._seams = seams
        self._recorder = Recorder(ledger, seams.observers)
        health = Health()
        self._admissions = Admissions(ledger, health=health, life_s=settings.ai_total_timeout_s)
        self._attempts = Attempts(self.upstream, settings, health=health)
        self._afterwards: set[asyncio.Task[None]] = set()

    @property
    def call_count(self) -> int:
        """Calls that run."""
        return self._recorder.call_count

    async def close(self) -> None:
        """Cancel the calls that run, wait until each is recorded, close the connections."""
        await self._recorder.close()
        for task in self._afterwards:
            task.cancel()
        if self._afterwards:
            await asyncio.wait(self._afterwards)
        await self.configs.close()
        await self.upstream.close()

    async def check_caller(self, caller: Caller) -> None:
        """Raises AnonymousAiDeniedError, DatabaseUnavailableError."""
        if not caller.is_known:
            _check_anonymous(caller, await self.configs.of(caller.app_id))

    async def call(
        self,
        caller: Caller,
        endpoint: Endpoint,
        client: Client,
        given: Given = NOTHING_GIVEN,
        *,
        step: int = 1,
        deadline_s: float = math.inf,
    ) -> Answer:
        """The answer, or its beginning. Raises AiError and other ButterbaseErrors.

        `step`: which of its request's calls it is. It ends by the deadline, of the loop's clock.
        """
        passage = Passage(Call(caller, endpoint, step=step), client, given)
        passage.deadline_s = min(deadline_s, passage.began_s + self.settings.ai_total_timeout_s)
        if self._seams.tracer is not None:
            passage.call.trace = self._seams.tracer.begin(
                endpoint,
                app_id=caller.app_id,
                user_id=caller.user_id,
                request_id=caller.request_id,
                headers=given.headers,
            )
        self._recorder.begin(passage.call)
        try:
            return await self._perform(passage)
        except BaseException as raised:
            status, error = self._fault(passage, raised)
            if passage.call.is_sent and passage.asked is not None and passage.tariff is not None:
                meter_unanswered(passage.call, passage.asked, passage.tariff)
            self._recorder.end(passage.call, status, error)
            passage.end(None)
            if error is None:
                raise
            tell_call(error, passage.call)
            if error is raised:
                raise
            raise error from raised

    async def _perform(self, passage: Passage) -> Answer:
        app_id = passage.call.caller.app_id
        body = await passage.client.read()
        for _ in range(CHANGE_COUNT_MAX):
            try:
                return await self._perform_by(await self.configs.of(app_id), passage, body)
            except ConfigChangedError:
                passage.end(None)
                self.configs.forget(app_id)
        raise DatabaseUnavailableError("the app's configuration is being changed all the time")

    async def _perform_by(self, app: AppConfig, passage: Passage, body: bytes) -> Answer:
        """Raises ConfigChangedError: the configuration is not the app's any more."""
        call = passage.call
        _check_anonymous(call.caller, app)
        if self._seams.prompts is not None and b'"prompt"' in body:
            body = await self._seams.prompts.fill(call.caller.app_id, call.endpoint, body)
        asked = passage.asked = Asked(call.endpoint, body, beta=passage.given.beta)
        call.is_streamed = asked.is_streamed
        chain = _route(call, asked, app)
        if (only := passage.given.only_model) is not None:
            check_only(chain, only)
            call.only_model = only
        if app.log_content is not None and self._seams.contents is not None:
            passage.draft = self._seams.contents.begin(call, asked, app.log_content)
        passage.asking = self._asking(passage, asked, app, chain)
        guarding = await self._guard(passage, asked)
        if (kept := await self._look_up(passage, asked)) is not None:
            return self._answer_kept(passage, asked, kept)
        course = await self._admissions.admit(call, asked, app, chain)
        passage.tariff = course.tariff
        outcome = await self._attempts.perform(
            call,
            asked,
            course.chain,
            course.targets,
            tariff=course.tariff,
            deadline_s=passage.deadline_s,
            guarding=guarding,
        )
        if isinstance(outcome, Begun):
            return await self._answer_begun(passage, asked, course.tariff, outcome)
        meter_whole(call, asked, course.tariff, outcome)
        call.is_sent = False
        if call.trace is not None:
            call.trace.read(outcome.model, outcome.finish, outcome.usage)
        return self._answer_whole(passage, outcome)

    async def _answer_begun(
        self, passage: Passage, asked: Asked, tariff: Tariff, begun: Begun
    ) -> Answer:
        call = passage.call
        call.has_answered = True
        headers = [(b"content-type", _EVENT_STREAM), *call.headers(is_ended=False)]
        relay = Relay(
            call,
            asked,
            tariff,
            begun,
            self._recorder,
            has_left=lambda: passage.client.has_left,
            on_end=passage.end,
        )
        return Answer(200, headers, await relay.start(), call)

    def _answer_whole(self, passage: Passage, whole: Whole) -> Answer:
        call = passage.call
        self._recorder.end(call, "ok", None)
        passage.end([whole.body])
        content_type = _EVENT_STREAM if whole.is_stream else _JSON
        headers = [(b"content-type", content_type), *call.headers(is_ended=True)]
        return Answer(200, headers, whole.body, call)

    def _fault(
        self, passage: Passage, raised: BaseException
    ) -> tuple[Status, ButterbaseError | None]:
        match raised:
            case asyncio.CancelledError():
                is_stopping = not passage.client.has_left
                return "cancelled", AiStoppingError(hint="try again") if is_stopping else None
            case ClientLeftError():
                return "cancelled", raised
            case UpstreamTimeoutError():
                return "timeout", raised
            case DatabaseUnavailableError():
                # Nothing is asked of a provider that could not be written down.
                hint = "try again when the control database is back"
                return "failed", AccountingError(hint=hint)
            case ButterbaseError():
                return "failed", raised
            case _:
                request_id = passage.call.caller.request_id
                _log.error("request %s: the call to a model failed", request_id, exc_info=raised)
                return "failed", AiInternalError()

    # Beside the way: guards and the cache

    def _asking(
        self, passage: Passage, asked: Asked, app: AppConfig, chain: Chain
    ) -> Asking | None:
        if self._seams.cache is None and self._seams.guards is None:
            return None
        caller = passage.call.caller
        return Asking(
            app_id=caller.app_id,
            role=caller.role,
            user_id=caller.user_id,
            key_id=caller.key_id,
            request_id=caller.request_id,
            endpoint=asked.endpoint,
            model=passage.call.requested_model,
            targets=tuple((target.provider.name, target.model) for target in chain.targets),
            body=asked.body,
            cache_rules=app.cache_rules if chain.cache_rules == NULL else chain.cache_rules,
            guard_rules=app.guard_rules if chain.guard_rules == NULL else chain.guard_rules,
            cache_control=passage.given.cache_control,
            beta=passage.given.beta,
        )

    async def _guard(self, passage: Passage, asked: Asked) -> Guarding | None:
        guards, asking = self._seams.guards, passage.asking
        if guards is None or asking is None or asking.guard_rules == NULL:
            return None
        try:
            if asked.endpoint is Endpoint.EMBEDDINGS:
                if passage.call.caller.index is not None:
                    return None
                guarded = await guards.on_embedding(asking)
            else:
                guarded = await guards.on_request(asking, asked.form)
        except ButterbaseError as error:
            passage.call.guards = dict(getattr(error, "verdicts", {}))
            raise
        passage.call.guards = dict(guarded.verdicts)
        if guarded.body is not None:
            asked.replace_body(guarded.body)
        if guarded.request is not None:
            asked.rewrite(guarded.request, added_bytes=guarded.added_bytes)
        if guarded.memory is None:
            return None
        return Guarding(
            lambda answer: guards.on_answer(guarded, answer), lambda: guards.filter(guarded)
        )

    async def _look_up(self, passage: Passage, asked: Asked) -> Kept | None:
        cache, asking = self._seams.cache, passage.asking
        if cache is None or asking is None or asking.cache_rules == NULL:
            return None
        if asked.endpoint is Endpoint.EMBEDDINGS:
            return None
        try:
            request = asked.form
        except AiError:  # only its provider can read it
            passage.call.cache = "bypass"
            return None
        lookup = await cache.find(asking, request)
        passage.call.cache = lookup.state
        if lookup.kept is None and lookup is not NO_LOOKUP:
            passage.on_end = lambda parts: self._keep(passage, asked, lookup, parts)
        return lookup.kept

    def _answer_kept(self, passage: Passage, asked: Asked, kept: Kept) -> Answer:
        call = passage.call
        call.cache, call.cache_similarity = kept.state, kept.similarity
        call.served_by = (kept.provider, kept.model)
        call.usage, call.usage_source = Usage(), "reported"
        call.saved_nanos = kept.cost_nanos
        answer = kept.answer
        if answer.usage is not None and (asked.is_streamed or answer.usage.cost is not None):
            answer = replace(answer, usage=replace(answer.usage, cost=Decimal()))
        return self._answer_whole(passage, encode_whole(asked, answer))

    def _keep(
        self, passage: Passage, asked: Asked, lookup: Lookup, parts: list[bytes] | None
    ) -> None:
        """Once the call has ended; `parts` is a whole answer in the client's wire."""
        answer = None
        if parts is not None:
            is_stream = passage.call.has_answered
            answer = read_stream(asked, parts) if is_stream else read_answer(asked, parts[0])
        call = passage.call
        if answer is None or call.usage is None:
            lookup.drop(has_left=passage.client.has_left)
            return
        fresh = Fresh(
            answer,
            call.provider,
            call.model,
            call.usage,
            call.cost_nanos,
            asyncio.get_running_loop().time() - passage.began_s,
        )
        task = asyncio.create_task(_coroutine(lookup.keep(fresh)))
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)


def _check_anonymous(caller: Caller, app: AppConfig) -> None:
    """Raises AnonymousAiDeniedError."""
    if not caller.is_known and not app.allows_anonymous:
        raise AnonymousAiDeniedError(
            hint="sign in, and send the user's access token; the anon key alone is public"
        )


def check_allowed(app: AppConfig, models: Iterable[str]) -> None:
    """Raises ModelDeniedError."""
    for name in models:
        if app.allowed_models is not None and name not in app.allowed_models:
            raise ModelDeniedError(
                f"the app does not allow the model {name[:MODEL_LENGTH_MAX]!r}",
                hint="allowedModels of ai/config lists those it does",
            )


def check_only(chain: Chain, model: str) -> None:
    """Raises EmbeddingMismatchError where another model might answer."""
    if any(target.model != model for target in chain.all_targets):
        raise EmbeddingMismatchError(
            f"the route of {chain.model!r} leads elsewhere than to {model} alone",
            hint="vectors of two models are never mixed",
        )


def _route(call: Call, asked: Asked, app: AppConfig) -> Chain:
    """Raises ModelMissingError, ModelDeniedError, TokenLimitError, and what `resolve` does."""
    model = asked.model or app.default_model
    if not model:
        raise ModelMissingError(
            param="model", hint="name a model, or set defaultModel with PUT ai/config"
        )
    call.requested_model = check_model(model)
    check_allowed(app, (model, *asked.other_models))
    default = COMPLETION_TOKENS_DEFAULT if app.is_limited else None
    if asked.endpoint is not Endpoint.EMBEDDINGS:
        asked.limit_tokens(app.token_count_max, default)
    return app.table.resolve(model)


async def _coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
