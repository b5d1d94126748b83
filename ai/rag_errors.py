"""What collections and documents refuse."""

from butterbase.sql.errors import ButterbaseError


class RagError(ButterbaseError):
    """The collection could not do this."""

    code = "rag_error"


class RagRequestError(RagError):
    """The request cannot be read."""

    code = "rag_request_invalid"


class CollectionNotFoundError(RagError):
    """There is no such collection, or the caller may not see it."""

    code = "collection_not_found"


class DocumentNotFoundError(RagError):
    """There is no such document, or the caller may not see it."""

    code = "document_not_found"
