"""Changing an app's settings of auth: a merge patch (RFC 7396) onto what is stored.

Secrets come as text, are stored sealed, and are shown as `HIDDEN`, which sent back changes nothing.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Final, TypeAlias

import msgspec

from butterbase.api.auth.config import AuthConfig, Hooks, Secret, decode
from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.mail.defaults import check_mail
from butterbase.api.auth.webhooks import is_url, key_of

HIDDEN = "********"

Document: TypeAlias = dict[str, Any]

_SMTP: Final = ("mail", "smtp")
_SECRET_OF: Final = {"mail": "password", "providers": "client_secret"}


def patched(
    stored: Document, patch: Document, *, seal: Callable[[str], str], unseal: Callable[[str], str]
) -> tuple[Document, AuthConfig]:
    """What is to be stored, and what it means. Raises InvalidAuthBodyError, EmailInvalidError."""
    try:
        patch = deepcopy(patch)
    except RecursionError:
        raise InvalidAuthBodyError("the settings are nested too deeply") from None
    given = {
        path
        for path, settings in _servers_of(patch).items()
        if settings.get(_SECRET_OF[path[0]]) not in (None, HIDDEN)
    }
    for holder, name in _secrets_of(patch):
        if holder[name] == HIDDEN:
            del holder[name]
        elif isinstance(holder[name], str):
            holder[name] = seal(holder[name])
        elif holder[name] is not None:
            raise InvalidAuthBodyError(f"{name} is not text")
    changed = _merge(stored, patch)
    config = decode(msgspec.json.encode(changed), open_secret=unseal)
    _check_servers(stored, changed, given)
    check_mail(config.mail)
    _check_hooks(config.hooks)
    return changed, config


def _check_servers(old: Document, new: Document, given: set[tuple[str, str]]) -> None:
    """A stored secret goes to no other server than the one that it was given for."""
    before = _servers_of(old)
    for path, server in _servers_of(new).items():
        name = _SECRET_OF[path[0]]
        known = before.get(path, {})
        if (
            name in server
            and name in known
            and path not in given
            and _to(path, server) != _to(path, known)
        ):
            raise InvalidAuthBodyError(
                f"{'.'.join(path)}.{name} has to be sent again, since it would go to another server"
            )


def _to(path: tuple[str, str], server: Document) -> tuple[object, ...]:
    """Where the secret goes, and how."""
    if path == _SMTP:
        return server.get("host"), server.get("port", 587), server.get("tls", "starttls")
    options = server.get("options")
    return server.get("issuer"), options.get("url") if isinstance(options, dict) else None


def _servers_of(document: Document) -> dict[tuple[str, str], Document]:
    """By their paths, those that are told a secret."""
    mail, providers = document.get("mail"), document.get("providers")
    found = {_SMTP: mail.get("smtp")} if isinstance(mail, dict) else {}
    if isinstance(providers, dict):
        found |= {("providers", name): provider for name, provider in providers.items()}
    return {path: server for path, server in found.items() if isinstance(server, dict)}


def _check_hooks(hooks: Hooks) -> None:
    if hooks.secret is not None:
        key_of(hooks.secret.text)
    elif any(
        hook is not None and is_url(hook)
        for hook in (hooks.before_user_created, hooks.custom_access_token, hooks.send_email)
    ):
        raise InvalidAuthBodyError("a hook at a URL needs hooks.secret")


def shown(config: AuthConfig) -> bytes:
    """All settings as JSON, also those that were not changed, without the secrets."""
    return msgspec.json.encode(config, enc_hook=_hide)


def _hide(value: object) -> str:
    assert isinstance(value, Secret)
    return HIDDEN


def _secrets_of(document: Document) -> Iterator[tuple[Document, str]]:
    """Where the secrets of a document or patch are: the object, and the member's name."""
    mail, providers = document.get("mail"), document.get("providers")
    smtp = mail.get("smtp") if isinstance(mail, dict) else None
    if isinstance(smtp, dict) and "password" in smtp:
        yield smtp, "password"
    for provider in providers.values() if isinstance(providers, dict) else ():
        if isinstance(provider, dict) and "client_secret" in provider:
            yield provider, "client_secret"
    hooks = document.get("hooks")
    if isinstance(hooks, dict) and "secret" in hooks:
        yield hooks, "secret"


def _merge(old: object, patch: Document) -> Document:
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged
