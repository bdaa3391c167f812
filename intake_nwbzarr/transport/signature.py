"""AWS Signature Version 4 of S3 requests, in their headers."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from yarl import URL

from intake_nwbzarr.location.credentials import Keys
from intake_nwbzarr.transport.pool import directly

_ALGORITHM = "AWS4-HMAC-SHA256"


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    keys: Keys,
    region: str,
    now: datetime,
    service: str = "s3",
) -> dict[str, str]:
    """Headers with the signature that botocore's ``S3SigV4Auth`` makes, in a small part of its time.

    The path, the query and the host are signed as they are sent, and so is every header.

    Parameters
    ----------
    method
        ``GET``, ``PUT``, in capitals.
    url
        Encoded.
    headers
        All but ``Host`` and what the signature adds.
    body
        Its digest is signed.
    keys
        The credentials.
    region
        The bucket's.
    now
        In UTC; servers refuse signatures that are 15 minutes old.
    service
        Of AWS: some kinds of access points have one of their own.

    Returns
    -------
    dict
        The headers, with ``X-Amz-Date``, ``X-Amz-Content-SHA256``, ``Authorization``, and
        ``X-Amz-Security-Token`` where the credentials are temporary.

    References
    ----------
    Amazon S3 API Reference, "Signature Calculations for the Authorization Header".
    """
    address = URL(url, encoded=True)
    # strftime is slow.
    moment = now.isoformat(timespec="seconds")[:19].replace("-", "").replace(":", "") + "Z"
    day = moment[:8]
    digest = sha256(body or b"").hexdigest()
    signed = {**headers, "X-Amz-Date": moment, "X-Amz-Content-SHA256": digest}
    if keys.token:
        signed["X-Amz-Security-Token"] = keys.token
    lines = {name.lower(): " ".join(value.split()) for name, value in signed.items()}
    lines["host"] = directly(address).authority
    names = sorted(lines)
    listed = ";".join(names)
    request = "\n".join(
        [
            method,
            address.raw_path,
            _canonical_query(address.raw_query_string),
            *(f"{name}:{lines[name]}" for name in names),
            "",
            listed,
            digest,
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    signature = _signer(keys.secret_key, day, region, service).copy()
    signature.update(f"{_ALGORITHM}\n{moment}\n{scope}\n{sha256(request.encode()).hexdigest()}".encode())
    signed["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={listed}, "
        f"Signature={signature.hexdigest()}"
    )
    return signed


def _canonical_query(query: str) -> str:
    """Every name with an equals sign, in order."""
    pairs = sorted(pair.partition("=") for pair in query.split("&")) if query else []
    return "&".join(f"{name}={value}" for name, _, value in pairs)


# A copy of an HMAC signs without letting go of the interpreter's lock, as hmac.digest does: to get it back
# takes milliseconds where other threads decode.
@lru_cache(maxsize=32)
def _signer(secret: str, day: str, region: str, service: str) -> hmac.HMAC:
    """The HMAC with the signing key of a day."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")
