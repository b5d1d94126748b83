"""The one page of a flow: to whose account a provider's is linked, for a person to look at."""

from html import escape

from falcon.asgi import Response

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Link an account</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 30rem; margin: 4rem auto }}
  button {{ font: inherit; padding: .5rem 1rem }}
</style>
<h1>Link your {provider} account?</h1>
<p>Your {provider} account will from then on sign in to the account <strong>{account}</strong>.</p>
<p>If that account is not yours, or you did not ask for this, close this page.</p>
<form method="post">
  <input type="hidden" name="confirmation" value="{confirmation}">
  <button>Link to {account}</button>
</form>
"""


def confirmation_page(resp: Response, *, provider: str, account: str, confirmation: str) -> None:
    resp.content_type = "text/html; charset=utf-8"
    resp.text = _PAGE.format(
        provider=escape(provider),
        account=escape(account or "without an address"),
        confirmation=escape(confirmation),
    )
    resp.set_header("Cache-Control", "no-store")
    resp.set_header("Referrer-Policy", "no-referrer")
    resp.set_header("X-Frame-Options", "DENY")
    # Not form-action: browsers hold the provider, to whom the answer leads on, against it.
    resp.set_header(
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    )
