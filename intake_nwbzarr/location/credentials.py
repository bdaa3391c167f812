"""AWS credentials: where they are found, how they are refreshed, and how they stay secret."""

from __future__ import annotations

import asyncio
import difflib
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

from intake_nwbzarr.errors import CredentialsError
from intake_nwbzarr.location.options import check_endpoint

logger = logging.getLogger("intake_nwbzarr")

_unlogged: ContextVar[bool] = ContextVar("unlogged", default=False)


class _Discretion(logging.Filter):
    """Drops what libraries say at DEBUG level of URLs, requests and credentials, if they work for us."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        return not _unlogged.get()


# A filter of a logger does not see what its children log.
_TALKATIVE = (
    *(f"botocore.{name}" for name in ("auth", "endpoint", "hooks", "httpsession", "parsers")),
    *("fsspec", "fsspec.asyn", "fsspec.cached", "fsspec.caching", "fsspec.http", "fsspec.reference"),
    *("fsspec.local", "fsspec.sftp", "gcsfs", "s3fs", "webhdfs"),
)
for _name in _TALKATIVE:
    logging.getLogger(_name).addFilter(_Discretion())


@contextmanager
def unlogged() -> Iterator[None]:
    """Have botocore and fsspec log nothing that holds secrets; what others do with them is logged as ever."""
    before = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(before)


_NOT_SENT = re.compile(r"[^!-~]")
_NOT_ENCODED = re.compile(r"[\ud800-\udfff]")
_KEY = randomness.token_bytes(32)
_GIVEN: dict[str, Mapping[str, Any]] = {}


@dataclass(frozen=True)
class Secrets:
    """A name for what a caller gave and nobody else may see; the values stay with this process.

    Equal values have equal handles within a process, and a handle says nothing of them anywhere: it is keyed
    with a number that is drawn when the process starts.

    Parameters
    ----------
    handle
        Names the values.
    ships
        Whether a pickle takes the values along (``ship_credentials=True``).
    """

    handle: str
    ships: bool = False

    @classmethod
    def keep(cls, values: Mapping[str, Any], *, ships: bool = False) -> Secrets:
        """Keep values for this process."""
        text = json.dumps(values, sort_keys=True, default=lambda value: f"{type(value).__name__} {id(value)}")
        handle = hmac.digest(_KEY, text.encode(), "sha256").hex()[:24]
        _GIVEN[handle] = dict(values)
        return cls(handle, ships)

    def reveal(self) -> Mapping[str, Any] | None:
        """The values, or None in a process that was never given them."""
        return _GIVEN.get(self.handle)

    def __repr__(self) -> str:
        return "Secrets(****)"

    def __reduce__(self) -> tuple[Any, ...]:
        values = self.reveal()
        if self.ships and values is not None:
            return _receive, (self.handle, Shipment(values))
        return Secrets, (self.handle, self.ships)


class Shipment:
    """Secret values on their way to another process of the same user."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __repr__(self) -> str:
        return "Shipment(****)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Shipment, (self._values,)

    def unpack(self, handle: str) -> None:
        """Keep the values for this process."""
        _GIVEN[handle] = self._values


def _receive(handle: str, shipment: Shipment) -> Secrets:
    shipment.unpack(handle)
    return Secrets(handle, ships=True)


@dataclass(frozen=True)
class Keys:
    """What requests are signed with; its text shows nothing of it.

    Parameters
    ----------
    access_key, secret_key
        The pair.
    token
        Of temporary credentials.
    """

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class S3Access:
    """Where S3 requests go, and who signs them.

    Parameters
    ----------
    endpoint_url
        None for Amazon's own.
    region
        As asked for or configured, None where nothing says.
    signer
        None for anonymous requests.
    verify
        Whether a server's certificate is checked, or the path of those that are trusted instead of the
        machine's.
    """

    endpoint_url: str | None
    region: str | None
    signer: AWSCredentials | None = field(repr=False)
    verify: bool | str = True


class AWSCredentials:
    """One set of AWS credentials, refreshed as a set where its source can."""

    def __init__(self, source: Any, url: str, reload: Callable[[], Any] | None = None) -> None:
        # Keys, or a botocore Credentials object, for a location, and what resolves them anew.
        self._source = source
        self._url = url
        self._reload = reload

    async def current(self) -> Keys:
        """The credentials that are valid now."""
        if isinstance(self._source, Keys):
            return self._source
        refresh_needed = getattr(self._source, "refresh_needed", None)
        if refresh_needed is not None and refresh_needed():
            frozen = await asyncio.to_thread(_renewed, self._source, self._url)
        else:
            frozen = self._source.get_frozen_credentials()
        return _keys(frozen.access_key, frozen.secret_key, frozen.token, self._url)

    async def refresh(self, expired: Keys | None) -> bool:
        """Resolve once more; whether that gave anything but the set that has `expired`."""
        if await self.current() == expired and self._reload is not None:
            self._source = await asyncio.to_thread(self._reload) or self._source
        return bool(await self.current() != expired)


def s3_access(public: Mapping[str, Any], secrets: Secrets | None, url: str) -> S3Access:
    """Resolve endpoint, region and credentials: what was given, else a profile, else the environment.

    The sources are never mixed. The machine's own role is asked for only with ``instance_role=True``; a
    profile or the environment may name a role to assume. Where nothing is asked for and nothing is found,
    requests are anonymous, which is logged.

    Raises
    ------
    CredentialsError
        When what was asked for cannot be found, or is incomplete.
    """
    given = secrets.reveal() if secrets is not None else None
    asked = bool(secrets is not None or public.get("profile") or public.get("instance_role"))
    if not asked and not _configured():
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

    source = _source(public, url, session)
    if source is not None:
        return replace(access, signer=AWSCredentials(source, url, lambda: _source(public, url)))
    if secrets is not None:
        raise CredentialsError(missing_here(url))
    if asked:
        wanted = f"profile {public['profile']!r}" if public.get("profile") else "machine's role"
        raise CredentialsError(f"No credentials for {url}: the {wanted} gives none.")
    _log_anonymous(url)
    return access


def missing_here(url: str) -> str:
    """What to do where explicit secrets stayed behind in another process."""
    return (
        f"The credentials for {url} were given to another process and did not travel with it. Set them in "
        "this process's environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or as a profile, or open it "
        "with storage_options={..., 'ship_credentials': True} to send them along."
    )


def ambient_identity() -> str:
    """A digest of everything in the environment that credentials, endpoint and region may come from."""
    state: list[object] = [os.environ.get(name) for name in _VARIABLES]
    for path in _files():
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


def _files() -> tuple[Path, Path]:
    environment = os.environ
    names = (
        environment.get("AWS_CONFIG_FILE", "~/.aws/config"),
        environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    )
    # As botocore does: where there is no home, the name stays as it is, and there is no such file.
    first, second = (Path(os.path.expanduser(os.path.expandvars(name))) for name in names)  # noqa: PTH111
    return first, second


def _configured() -> bool:
    # Importing botocore takes a third of a second, which users of public buckets need not spend.
    places = {"HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    return any(name in os.environ for name in set(_VARIABLES) - places) or any(
        path.exists() for path in _files()
    )


def _has_profiles(public: Mapping[str, Any]) -> bool:
    """Whether a profile or a file may say something; botocore, which is slow to import, then reads it."""
    named = public.get("profile") or "AWS_PROFILE" in os.environ or "AWS_DEFAULT_PROFILE" in os.environ
    return bool(named) or any(path.exists() for path in _files())


def _log_anonymous(url: str) -> None:
    logger.info("No credentials were asked for and none were found: %s is read anonymously.", url)


def _session(profile: str | None, url: str) -> Any:
    import botocore.session
    from botocore.exceptions import BotoCoreError

    session = botocore.session.Session(profile=profile)
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
        close = difflib.get_close_matches(name, known, n=3)
        found = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else (f"there are {', '.join(known[:5])}." if known else "no AWS profiles are configured.")
        )
        raise CredentialsError(f"No AWS profile {name!r} for {url}; {found}")
    raise CredentialsError(f"The AWS configuration files cannot be read for {url}: {problem}.")


def _source(public: Mapping[str, Any], url: str, session: Any | None = None) -> Any:
    """Keys of the environment, or what botocore finds; None where there is nothing."""
    return _environment_keys(public, url) or _resolve(
        session or _session(public.get("profile"), url), bool(public.get("instance_role")), url
    )


def _environment_keys(public: Mapping[str, Any], url: str) -> Keys | None:
    """The pair that the environment holds, if nothing else has a say in it."""
    environment = os.environ
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key or environment.get("AWS_CREDENTIAL_EXPIRATION"):
        return None
    if _has_profiles(public):
        return None
    token = environment.get("AWS_SECURITY_TOKEN") or environment.get("AWS_SESSION_TOKEN")
    return _keys(access_key, secret_key, token, url)


def _keys(access_key: str, secret_key: str, token: str | None, url: str) -> Keys:
    # The secret key is not sent, but an error of encoding it would hold it.
    if _NOT_SENT.search(access_key + (token or "")) or _NOT_ENCODED.search(secret_key):
        raise CredentialsError(
            f"The credentials for {url} hold a character that no credentials have, such as a space or a line "
            "break; check for what was copied along with them."
        )
    return Keys(access_key, secret_key, token or None)


def _resolve(session: Any, instance_role: bool, url: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    resolver = session.get_component("credential_provider")
    if not instance_role:
        # The provider that asks 169.254.169.254.
        resolver.remove("iam-role")
    problem = ""
    try:
        with unlogged():
            return resolver.load_credentials()
    except (BotoCoreError, ClientError, OSError, ValueError) as error:
        # Their messages may quote the files they read.
        problem = type(error).__name__
    raise CredentialsError(
        f"The AWS credentials for {url} are incomplete or cannot be obtained ({problem}); check the "
        "AWS_* variables and the profile."
    )


def _renewed(source: Any, url: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    problem = ""
    try:
        with unlogged():
            return source.get_frozen_credentials()
    except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError) as error:
        # A RuntimeError where what is renewed has expired again.
        problem = type(error).__name__
    raise CredentialsError(
        f"The AWS credentials for {url} have expired and cannot be renewed ({problem}): log in again, or set "
        "new ones."
    )


def _configured_region(session: Any | None) -> str | None:
    """The region of the environment or profile."""
    environment = os.environ
    default = session.get_config_variable("region") if session else environment.get("AWS_DEFAULT_REGION")
    return environment.get("AWS_REGION") or default


def _configured_certificates(session: Any | None) -> bool | str:
    """The path of the certificates that the environment or profile trusts; True for the machine's own."""
    found = session.get_config_variable("ca_bundle") if session else os.environ.get("AWS_CA_BUNDLE")
    return os.path.expanduser(found) if found else True  # noqa: PTH111 (where there is no home, as it stands)


def _configured_endpoint(session: Any | None) -> str | None:
    """The endpoint of the environment or profile, in botocore's order of precedence."""
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
