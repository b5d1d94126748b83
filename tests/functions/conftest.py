from tests.api.conftest import api, cheap_passwords

__all__ = ["api", "cheap_passwords"]
