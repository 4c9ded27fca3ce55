"""Telling a webhook about an outcome: retried, signed, without a secret in the body."""

from __future__ import annotations

import hashlib
import hmac
import logging
import random
import time
import urllib.error
import urllib.request

log = logging.getLogger(__name__)

SECRET_VARIABLE = "STYLEMILL_WEBHOOK_SECRET"
SIGNATURE_HEADER = "X-Stylemill-Signature"
MAX_ATTEMPTS = 4
FIRST_PAUSE_S = 1.0
TIMEOUT_S = 10.0


def signature(body: bytes, secret: str) -> str:
    """Return the value of the signature header: ``sha256=`` and the hex HMAC-SHA256 of the body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def notify(url: str, body: bytes, secret: str | None, *, first_pause_s: float = FIRST_PAUSE_S) -> bool:
    """Post a body; return whether the other side took it (a status from 200 to 299).

    Refusals that a repeat will not change (4xx but 408 and 429) are not repeated.

    Args:
        url: of the webhook.
        body: JSON.
        secret: of the signature; None sends no signature.
        first_pause_s: before the second attempt; it doubles from there, with jitter.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "stylemill"}
    if secret:
        headers[SIGNATURE_HEADER] = signature(body, secret)
    host = urllib.request.Request(url).host  # the path or query of a webhook may be its secret
    for attempt in range(MAX_ATTEMPTS):
        try:
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return True
        except urllib.error.HTTPError as error:
            problem = f"answered {error.code}"
            if 400 <= error.code < 500 and error.code not in (408, 429):
                log.warning("the webhook at %s %s", host, problem)
                return False
        except OSError as error:
            problem = f"did not answer ({type(error).__name__})"
        log.warning("the webhook at %s %s, attempt %d of %d", host, problem, attempt + 1, MAX_ATTEMPTS)
        if attempt + 1 < MAX_ATTEMPTS:
            time.sleep(first_pause_s * 2**attempt * random.uniform(0.5, 1.0))
    return False
