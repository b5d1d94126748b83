"""Plans, kept by the shape of their requests: the most recently used of one schema cache."""

from collections import OrderedDict

from butterbase.api.rest.plan.model import Plan
from butterbase.api.rest.request.model import Request
from butterbase.sql.relations.model import SchemaCache

KEPT_COUNT_MAX = 1024
KEPT_TEXT_MAX = 16 * 1024
"""Of a statement and of its request, characters: a larger plan is made anew each time, so that the
cache stays small."""


class Plans:
    def __init__(self) -> None:
        self._cache: SchemaCache | None = None
        self._kept: OrderedDict[Request, Plan] = OrderedDict()

    def get(self, cache: SchemaCache, request: Request) -> Plan | None:
        if cache is not self._cache:
            self._cache = cache
            self._kept.clear()
        plan = self._kept.get(request)
        if plan is not None:
            self._kept.move_to_end(request)
        return plan

    def keep(self, cache: SchemaCache, request: Request, plan: Plan) -> None:
        if cache is not self._cache or len(plan.main.text) + request.length > KEPT_TEXT_MAX:
            return
        self._kept[request] = plan
        if len(self._kept) > KEPT_COUNT_MAX:
            self._kept.popitem(last=False)
