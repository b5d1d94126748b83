from tests.ai.cache.conftest import cache_database, desk

__all__ = ["cache_database", "desk"]
