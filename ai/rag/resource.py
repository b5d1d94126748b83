"""Collections and documents over HTTP, under the caller's policies.

A document is a row; its passages and their vectors follow from the log (projections/embeddings.py),
so `202 Accepted` means that it is committed and its index will be.
"""

from typing import Any

from falcon.asgi import App

from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.rag.collections import CollectionResource, CollectionsResource
from butterbase.ai.rag.documents import (
    DocumentResource,
    DocumentsResource,
    DocumentTextResource,
    IngestResource,
)
from butterbase.ai.rag.indexes import IndexesResource, IndexResource, IndexRetryResource
from butterbase.ai.rag.requests import CheckModel


def add_routes(
    app: "App[Any, Any]", settings: DocumentSettings, check_model: CheckModel, *, prefix: str
) -> None:
    """The middleware has set `req.context.claims` and `.app`, whose `data` is an Executor."""
    app.add_route(f"{prefix}/rag/collections", CollectionsResource(check_model))
    app.add_route(f"{prefix}/rag/collections/{{collection}}", CollectionResource(check_model))
    app.add_route(f"{prefix}/rag/indexes", IndexesResource(check_model))
    app.add_route(f"{prefix}/rag/indexes/{{index}}", IndexResource(check_model))
    app.add_route(f"{prefix}/rag/indexes/{{index}}/retry", IndexRetryResource())
    documents = f"{prefix}/rag/{{collection}}/documents"
    app.add_route(documents, DocumentsResource(settings))
    app.add_route(f"{documents}/{{document}}", DocumentResource())
    app.add_route(f"{documents}/{{document}}/text", DocumentTextResource())
    app.add_route(f"{documents}/{{document}}/ingest", IngestResource(settings))
