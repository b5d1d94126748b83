"""What collections and documents refuse."""

from butterbase.sql.errors import ButterbaseError


class RagError(ButterbaseError):
    """The collection could not do this."""

    code = "rag_error"


class RagRequestError(RagError):
    """The request cannot be read."""

    code = "rag_request_invalid"


class RagModelError(RagRequestError):
    """Nothing here can embed with the model of that name."""

    code = "rag_model_unusable"


class CollectionNotFoundError(RagError):
    """There is no such collection, or the caller may not see it."""

    code = "collection_not_found"


class CollectionExistsError(RagError):
    """The caller has a collection of that name already."""

    code = "collection_exists"


class DocumentNotFoundError(RagError):
    """There is no such document, or the caller may not see it."""

    code = "document_not_found"


class DocumentNotParsedError(RagError):
    """The document has no text yet."""

    code = "document_not_parsed"


class NothingToIngestError(RagError):
    """There is nothing that the document could be made of again."""

    code = "document_nothing_to_ingest"


class StorageObjectError(RagError):
    """Documents cannot be made of stored objects yet."""

    code = "document_storage_unsupported"


class IndexNotFoundError(RagError):
    """There is no such index, or the caller may not see it."""

    code = "index_not_found"


class IndexExistsError(RagError):
    """There is an index of that name already."""

    code = "index_exists"
