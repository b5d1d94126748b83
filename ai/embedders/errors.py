"""Why there are no vectors.

EmbedderError                    the model cannot be used now; trying again later may help
├── EmbedderNotInstalledError    a package or the weights are missing; the hint has the command
├── EmbedderModelUnknownError    nothing here embeds with the model of that name
├── EmbedderRefusedError         the provider refuses the key or the model
│   └── TextsRefusedError        the provider refuses these texts
└── EmbeddingMismatchError       what came back are not vectors of this model
"""

from butterbase.projections.embedder import EmbedderError


class EmbedderNotInstalledError(EmbedderError):
    """The local embedding model is not installed."""

    code = "embedder_not_installed"


class EmbedderModelUnknownError(EmbedderError):
    """There is no embedder for that model."""

    code = "embedder_model_unknown"


class EmbedderRefusedError(EmbedderError):
    """The embedding provider refused the request."""

    code = "embedder_refused"


class TextsRefusedError(EmbedderRefusedError):
    """The embedding provider refused the texts."""

    code = "embedder_refused_texts"
    blames_texts = True


class EmbeddingMismatchError(EmbedderError):
    """The embedding provider's answer does not fit the model."""

    code = "embedding_mismatch"
