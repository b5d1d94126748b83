"""Why there are no vectors.

EmbedderError                    the model cannot be used now; trying again later may help
├── EmbedderNotInstalledError    a package or the weights are missing; the hint has the command
├── EmbedderRefusedError         the provider refuses these texts, the key or the model
└── EmbeddingMismatchError       what came back are not vectors of this model
"""

from butterbase.projections.embedder import EmbedderError


class EmbedderNotInstalledError(EmbedderError):
    """The local embedding model is not installed."""

    code = "embedder_not_installed"


class EmbedderRefusedError(EmbedderError):
    """The embedding provider refused the request."""

    code = "embedder_refused"


class EmbeddingMismatchError(EmbedderError):
    """The embedding provider's answer does not fit the model."""

    code = "embedding_mismatch"
