"""AWS credentials: how they are found, refreshed and kept secret."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import re
import secrets as randomness
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from intake_nwbzarr.errors import CredentialsError, did_you_mean, import_optional
from intake_nwbzarr.location.options import check_endpoint

logger = logging.getLogger("intake_nwbzarr")

_unlogged: ContextVar[bool] = ContextVar("unlogged", default=False)


class _WithheldRecords(logging.Filter):
    """Drops log records of other libraries inside `unlogged`: at DEBUG level they contain credentials."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        return not _unlogged.get()


# Each child logger needs the filter: a logger's filter does not see the records of its children.
_LOGGERS = (
    *(f"botocore.{name}" for name in ("auth", "endpoint", "hooks", "httpsession", "parsers")),
    *("fsspec", "fsspec.asyn", "fsspec.cached", "fsspec.caching", "fsspec.http", "fsspec.reference"),
    *("fsspec.local", "fsspec.sftp", "gcsfs", "s3fs", "webhdfs"),
)
for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_WithheldRecords())


@contextmanager
def unlogged() -> Iterator[None]:
    """Suppress log records of botocore and fsspec in this context; those of other callers are kept."""
    before = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(before)


_NOT_PRINTABLE = re.compile(r"[^!-~]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_KEY = randomness.token_bytes(32)
_GIVEN: dict[str, Mapping[str, Any]] = {}


@dataclass(frozen=True)
class Secrets:
    """A handle of secret values, which stay in the process that they were passed to."""

    # Equal for equal values within a process; reveals nothing, since _KEY is random.
    handle: str
    # Whether a pickle includes the values (ship_credentials=True).
    ships: bool = False

    @classmethod
    def keep(cls, values: Mapping[str, Any], *, ships: bool = False) -> Secrets:
        """Store values in this process and return their handle."""
        text = json.dumps(values, sort_keys=True, default=lambda value: f"{type(value).__name__} {id(value)}")
        handle = hmac.digest(_KEY, text.encode(), "sha256").hex()[:24]
        _GIVEN[handle] = dict(values)
        return cls(handle, ships)

    def reveal(self) -> Mapping[str, Any] | None:
        """Return the values, or None in a process that does not have them."""
        return _GIVEN.get(self.handle)

    def __repr__(self) -> str:
        return "Secrets(****)"

    def __reduce__(self) -> tuple[Any, ...]:
        values = self.reveal()
        if self.ships and values is not None:
            return _receive, (self.handle, Shipment(values))
        return Secrets, (self.handle, self.ships)


# Shorter texts, such as "x", may stand in a message by chance.
_SHORTEST_MASKED = 6
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


def mask_secrets(text: str, secrets: Secrets | None = None) -> str:
    """Return a text in which the secrets that this process knows, and all of `secrets`, are asterisks."""
    known = {os.environ.get(name, "") for name in _SECRET_VARIABLES}
    for values in list(_GIVEN.values()):
        known.update(_texts(values))
    own = set(_texts(secrets.reveal())) if secrets is not None else set()
    masked = own | {secret for secret in known if len(secret) >= _SHORTEST_MASKED}
    # As they are, and as URLs and the repr of a string have them.
    forms = {
        form
        for secret in masked
        for form in (secret, _quoted(secret), _quoted(secret, safe=""), repr(secret)[1:-1])
    }
    for form in sorted(forms - {""}, key=len, reverse=True):
        text = text.replace(form, "****")
    return text


def _quoted(secret: str, safe: str = "/") -> str:
    # Also of what somebody passed that no URL can have.
    return quote(secret, safe, errors="surrogatepass")


def _texts(values: object) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping | list | tuple):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _texts(value)


class Shipment:
    """Secret values in a pickle for another process of the same user."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __repr__(self) -> str:
        return "Shipment(****)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Shipment, (self._values,)

    def unpack(self, handle: str) -> None:
        """Store the values in this process."""
        _GIVEN[handle] = self._values


def _receive(handle: str, shipment: Shipment) -> Secrets:
    shipment.unpack(handle)
    return Secrets(handle, ships=True)


@dataclass(frozen=True)
class Keys:
    """AWS keys that requests are signed with; the repr shows none of them."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    # The session token of temporary credentials.
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class S3Access:
    """The endpoint, region and credentials of S3 requests."""

    # None for Amazon S3.
    endpoint_url: str | None
    # None where neither options nor configuration name one.
    region: str | None
    # None for anonymous requests.
    signer: AWSCredentials | None = field(repr=False)
    # Whether certificates are verified, or the path of trusted ones instead of the system's.
    verify: bool | str = True


class AWSCredentials:
    """A set of AWS credentials, refreshed as a whole where its source supports it."""

    def __init__(self, source: Any, url: str, reload: Callable[[], Any] | None = None) -> None:
        # Keys or a botocore Credentials object, the location for errors, and a function that resolves again.
        self._source = source
        self._url = url
        self._reload = reload

    async def current(self) -> Keys:
        """Return the credentials that are valid now."""
        if isinstance(self._source, Keys):
            return self._source
        refresh_needed = getattr(self._source, "refresh_needed", None)
        if refresh_needed is not None and refresh_needed():
            frozen = await asyncio.to_thread(_refreshed, self._source, self._url)
        else:
            frozen = self._source.get_frozen_credentials()
        return _keys(frozen.access_key, frozen.secret_key, frozen.token, self._url)

    async def refresh(self, expired: Keys | None) -> bool:
        """Resolve again; return whether the result differs from the `expired` set."""
        if await self.current() == expired and self._reload is not None:
            self._source = await asyncio.to_thread(self._reload) or self._source
        return bool(await self.current() != expired)


def s3_access(public: Mapping[str, Any], secrets: Secrets | None, url: str) -> S3Access:
    """Return endpoint, region and credentials from the options, else a profile, else the environment."""
    # Sources are never mixed. The instance metadata service is asked only with instance_role=True; a profile
    # or the environment may name a role to assume. Without any credentials, requests are anonymous.
    given = secrets.reveal() if secrets is not None else None
    required = bool(secrets is not None or public.get("profile") or public.get("instance_role"))
    if not required and not _is_configured():
        if not public.get("anon"):
            _log_anonymous(url)
        verify = public.get("verify", True)
        return S3Access(public.get("endpoint_url"), public.get("region"), None, verify)

    session = _session(public.get("profile"), url) if _has_profiles(public) else None
    access = S3Access(
        public.get("endpoint_url") or _configured_endpoint(session),
        public.get("region") or _configured_region(session),
        None,
        public.get("verify", _configured_certificates(session)),
    )
    if public.get("anon"):
        return access
    if given is not None and "key" in given:
        keys = _keys(given["key"], given["secret"], given.get("token"), url)
        return replace(access, signer=AWSCredentials(keys, url))

    found = _find_credentials(public, url, session)
    if found is not None:
        return replace(access, signer=AWSCredentials(found, url, lambda: _find_credentials(public, url)))
    if secrets is not None:
        raise credentials_not_sent(url)
    if required:
        source = f"AWS profile {public['profile']!r}" if public.get("profile") else "instance role"
        raise CredentialsError(
            f"No credentials for {url}: the {source} provides none.", location=url, expected=source
        )
    _log_anonymous(url)
    return access


def credentials_not_sent(url: str) -> CredentialsError:
    """Return the error for explicit credentials that were not sent from another process."""
    return CredentialsError(
        f"The credentials for {url} were passed in another process and were not sent to this one.",
        location=url,
        next_step="Set them in this process's environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in a "
        "profile, or open the session with storage_options={..., 'ship_credentials': True} to send them.",
    )


def ambient_identity() -> str:
    """Return a digest of every variable and file that credentials, endpoint and region may come from."""
    state: list[object] = [os.environ.get(name) for name in _VARIABLES]
    for path in _config_files():
        try:
            status = path.stat()
        except OSError:
            state.append(None)
        else:
            state.append((status.st_mtime_ns, status.st_size))
    return hmac.digest(_KEY, repr(state).encode(), "sha256").hex()[:24]


_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_DEFAULT_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_PROFILE", "AWS_REGION", "AWS_ROLE_ARN",
    "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "HOME",
)  # fmt: skip


def _config_files() -> tuple[Path, Path]:
    environment = os.environ
    names = (
        environment.get("AWS_CONFIG_FILE", "~/.aws/config"),
        environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    )
    # As in botocore: without a home directory, "~" stays and no such file exists.
    first, second = (Path(os.path.expanduser(os.path.expandvars(name))) for name in names)  # noqa: PTH111
    return first, second


def _is_configured() -> bool:
    # Importing botocore takes a third of a second, which users of public buckets should not wait for.
    places = {"HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    return any(name in os.environ for name in set(_VARIABLES) - places) or any(
        path.exists() for path in _config_files()
    )


def _has_profiles(public: Mapping[str, Any]) -> bool:
    """Return whether profiles or configuration files exist, which only botocore (a slow import) can read."""
    named = public.get("profile") or "AWS_PROFILE" in os.environ or "AWS_DEFAULT_PROFILE" in os.environ
    return bool(named) or any(path.exists() for path in _config_files())


def _log_anonymous(url: str) -> None:
    logger.info("No credentials found: requests to %s are anonymous.", url)


def _session(profile: str | None, url: str) -> Any:
    session_module = import_optional("botocore.session", "s3", f"The AWS configuration for {url}")
    from botocore.exceptions import BotoCoreError

    session = session_module.Session(profile=profile)
    known: list[str] = []
    problem = ""
    try:
        known = session.available_profiles
        session.get_scoped_config()
    except BotoCoreError as error:
        problem = type(error).__name__
    if not problem:
        return session
    name = profile or os.environ.get("AWS_PROFILE") or "default"
    if problem == "ProfileNotFound":
        others = f"Profiles are {', '.join(known[:5])}." if known else "No AWS profiles are configured."
        raise CredentialsError(
            f"No AWS profile {name!r} for {url}.",
            location=url,
            found=name,
            expected=known,
            next_step=did_you_mean(name, known, most=3) or others,
        )
    raise CredentialsError(
        f"The AWS configuration files cannot be read for {url}: {problem}.", location=url, found=problem
    )


def _find_credentials(public: Mapping[str, Any], url: str, session: Any | None = None) -> Any:
    """Return keys from the environment, or the credentials that botocore finds, or None."""
    return _environment_keys(public, url) or _resolve(
        session or _session(public.get("profile"), url), bool(public.get("instance_role")), url
    )


def _environment_keys(public: Mapping[str, Any], url: str) -> Keys | None:
    """Return the keys in the environment, None where profiles or an expiry time need botocore."""
    environment = os.environ
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key or environment.get("AWS_CREDENTIAL_EXPIRATION"):
        return None
    if _has_profiles(public):
        return None
    token = environment.get("AWS_SECURITY_TOKEN") or environment.get("AWS_SESSION_TOKEN")
    return _keys(access_key, secret_key, token, url)


def _keys(access_key: str, secret_key: str, token: str | None, url: str) -> Keys:
    # The secret key is not sent, but a UnicodeEncodeError would contain it.
    if _NOT_PRINTABLE.search(access_key + (token or "")) or _SURROGATE.search(secret_key):
        raise CredentialsError(
            f"The credentials for {url} contain an invalid character, such as a space or a line break.",
            location=url,
            next_step="Check that nothing else was copied with them.",
        )
    return Keys(access_key, secret_key, token or None)


def _resolve(session: Any, instance_role: bool, url: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    resolver = session.get_component("credential_provider")
    if not instance_role:
        # The provider that requests the instance metadata service at 169.254.169.254.
        resolver.remove("iam-role")
    problem = ""
    try:
        with unlogged():
            return resolver.load_credentials()
    except (BotoCoreError, ClientError, OSError, ValueError) as error:
        # Their messages may quote the files that they read.
        problem = type(error).__name__
    raise CredentialsError(
        f"The AWS credentials for {url} are incomplete or cannot be obtained ({problem}).",
        location=url,
        found=problem,
        next_step="Check the AWS_* environment variables and the profile.",
    )


def _refreshed(source: Any, url: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    problem = ""
    try:
        with unlogged():
            return source.get_frozen_credentials()
    except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError) as error:
        # botocore raises RuntimeError where the refreshed credentials have expired, too.
        problem = type(error).__name__
    raise CredentialsError(
        f"The AWS credentials for {url} have expired and cannot be refreshed ({problem}).",
        location=url,
        found=problem,
        next_step="Log in again, or set new ones.",
    )


def _configured_region(session: Any | None) -> str | None:
    """Return the region of the environment or profile."""
    environment = os.environ
    default = session.get_config_variable("region") if session else environment.get("AWS_DEFAULT_REGION")
    return environment.get("AWS_REGION") or default


def _configured_certificates(session: Any | None) -> bool | str:
    """Return the CA bundle of the environment or profile, True for the system's certificates."""
    found = session.get_config_variable("ca_bundle") if session else os.environ.get("AWS_CA_BUNDLE")
    return os.path.expanduser(found) if found else True  # noqa: PTH111 (pathlib raises without a home directory)


def _configured_endpoint(session: Any | None) -> str | None:
    """Return the endpoint of the environment or profile, in botocore's order of precedence."""
    environment = os.environ
    scoped = session.get_scoped_config() if session else {}
    ignored = environment.get(
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", str(scoped.get("ignore_configured_endpoint_urls", ""))
    )
    if ignored.lower() == "true":
        return None
    services = session.full_config.get("services", {}) if session else {}
    service = services.get(scoped.get("services"), {}).get("s3", {})
    endpoint = (
        environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
        or (service.get("endpoint_url") if isinstance(service, Mapping) else None)
        or scoped.get("endpoint_url")
    )
    return check_endpoint(endpoint) if endpoint else None
