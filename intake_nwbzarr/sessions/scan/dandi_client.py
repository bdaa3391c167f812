"""The client of the package dandi, connected to the API of one archive, with errors of this package."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    HostNotFoundError,
    LocationError,
    LocationNotFoundError,
    MissingPackageError,
    NWBZarrError,
    OptionError,
    ResponseError,
    TransportError,
    did_you_mean,
)
from intake_nwbzarr.location.urls import plain_server_url

DANDI_API: Final = "https://api.dandiarchive.org/api"
# Seconds to connect, and to wait for the next bytes; the client itself would wait for ever.
_TIMEOUTS: Final = (10, 30)
# The client sleeps as long as the server says, up to a week, in each of its twelve attempts.
_LONGEST_PAUSE: Final = 60


@dataclass
class Archive:
    """A connected client, and how error messages name it."""

    client: Any
    url: str
    # Where the token that it sends comes from; None without one.
    token_source: str | None = None

    def sign_in(self, token: str, source: str) -> None:
        """Let the client send a token, once the archive has accepted it."""
        self.token_source = source
        with _translated(self, "the token"):
            self.client.authenticate(token)

    def dandiset(self, identifier: str, version: str | None) -> Any:
        """Return the client's RemoteDandiset: of the version, the last published one, or the draft."""
        try:
            return self._dandiset(identifier, version)
        except CredentialsError:
            # A keyring may ask its user to unlock it, so it is opened only for what is not public.
            token = None if self.token_source else _from_keyring(self.client.dandi_instance.name)
            if not token:
                raise
            self.sign_in(token, "in the keyring")
            return self._dandiset(identifier, version)

    def _dandiset(self, identifier: str, version: str | None) -> Any:
        from dandi.exceptions import NotFoundError

        with _translated(self, f"dandiset {identifier}"):
            try:
                found = self.client.get_dandiset(identifier, lazy=False)
            except NotFoundError:
                raise LocationNotFoundError(
                    f"There is no dandiset {identifier} at {self.url}.",
                    location=self.url,
                    found=identifier,
                    next_step="Check its number on the archive's page, and api_url= (--api-url) if it is in "
                    "another archive.",
                ) from None
            if version in {None, found.version_id}:
                return found
            try:
                return found.for_version(version)
            except NotFoundError:
                known = [str(each) for each in found.get_versions()]
                raise LocationNotFoundError(
                    f"Dandiset {identifier} has no version {version} at {self.url}.",
                    location=self.url,
                    found=version,
                    expected=known,
                    next_step=did_you_mean(str(version), known)
                    or f"Its versions are {', '.join(known[-10:])}.",
                ) from None

    def assets(self, dandiset: Any, glob: str | None) -> tuple[list[Any], int]:
        """Return a dandiset's Zarr and NWB assets with their metadata, and how many others there are."""
        from dandi.dandiapi import AssetType, RemoteAsset

        path = f"{dandiset.version_api_path}assets/"
        with _translated(self, f"the assets of dandiset {dandiset.identifier}"):
            # In the order of their paths, so that no asset is missed between two pages; in pages of the
            # server's own size, since the client trusts that it gets as many as it asks for. A page brings
            # the metadata of its assets; from a server that ignores `metadata` they are read one by one.
            query: dict[str, str | None] = {"metadata": "true", "order": "path"}
            wanted: list[dict[str, str | None]] = [
                {"glob": glob, "zarr": "true"},
                {"glob": "*.nwb" if glob is None else glob},
            ]
            found: dict[str, Any] = {}
            for kind in wanted:
                for row in self.client.paginate(path, params=query | kind):
                    asset = RemoteAsset.from_data(dandiset, row, row.pop("metadata", None))
                    is_file = asset.path.lower().endswith(".nwb")
                    if asset.asset_type is AssetType.ZARR or is_file:
                        found[asset.identifier] = asset
            count = int(self.client.get(path, params={"glob": glob, "page_size": 1})["count"])
        assets = sorted(found.values(), key=lambda asset: str(asset.path))
        return assets, max(0, count - len(assets))

    def metadata(self, asset: Any) -> dict[str, Any]:
        """Return an asset's metadata, which most listings include."""
        with _translated(self, f"the metadata of {asset.path}"):
            found = asset.get_raw_metadata()
            if not isinstance(found, dict):
                raise TypeError
            return found


@contextmanager
def connect(api_url: str | None, token: str | None) -> Iterator[Archive]:
    """Connect the client to an API, and check that it is a DANDI API and accepts the token.

    Without `token` it is looked up in the environment, and for what is not public in the keyring.
    """
    # Else the client asks a server of its developers whether it is up to date.
    os.environ.setdefault("DANDI_NO_ET", "1")
    try:
        from dandi.consts import DandiInstance, known_instances, known_instances_rev
        from dandi.dandiapi import DandiAPIClient
    except ImportError as error:
        raise MissingPackageError(
            f"The DANDI archive is listed with the package dandi, which cannot be imported: {error}.",
            next_step='Install it with: pip install "intake-nwbzarr[dandi]", then '
            "pip install --no-deps dandi.",
        ) from error
    url = checked_api_url(api_url)
    instance = known_instances.get(known_instances_rev.get(url))
    if instance is None:
        # As the client names an archive that it does not know, which it would ask three more URLs for.
        instance = DandiInstance(urlsplit(url).netloc, None, url)
    logger = logging.getLogger("dandi")
    # It logs whole responses and tracebacks; what matters of them is in our errors.
    logger.addFilter(_drop)
    try:
        with DandiAPIClient(dandi_instance=instance) as client:
            archive = Archive(client, instance.api)
            _limit(client, instance.api)
            _check_version(archive)
            # DANDI_API_KEY for the public archive. Each other archive has its own variable, so that a token
            # is sent only to the archive that it is from.
            variable = _variable(client)
            source = "passed as token=" if token is not None else f"in the environment variable {variable}"
            token = _checked_token(token, source) if token is not None else os.environ.get(variable)
            if token:
                archive.sign_in(_checked_token(token, source), source)
            yield archive
    finally:
        logger.removeFilter(_drop)


def checked_api_url(api_url: object) -> str:
    """Return the URL of an API, without a trailing slash."""
    given = DANDI_API if api_url is None else api_url
    url = plain_server_url(given) if isinstance(given, str) and given.isprintable() else None
    if url is None:
        # Not shown: what was mistyped may be a token.
        raise LocationError(
            "api_url must be the https:// URL of a DANDI API, without a password or query.",
            expected=DANDI_API,
        )
    return url


def _drop(record: logging.LogRecord) -> bool:  # noqa: ARG001 - a logging filter
    return False


def _limit(client: Any, url: str) -> None:
    """Let the client's session send requests to its API only, and none without a timeout."""
    from requests import ConnectionError as NotConnected
    from requests import Response
    from requests.adapters import HTTPAdapter
    from requests.exceptions import InvalidURL
    from urllib3.exceptions import NameResolutionError

    class Patient(HTTPAdapter):
        def send(self, request: Any, *arguments: Any, **keywords: Any) -> Response:
            keywords["timeout"] = keywords.get("timeout") or _TIMEOUTS
            try:
                response: Response = super().send(request, *arguments, **keywords)
            except NotConnected as error:
                # The client would retry for a minute, but a name that does not resolve is mostly mistyped.
                if isinstance(getattr(error.args[0], "reason", None), NameResolutionError):
                    raise _unknown_host(url) from None
                raise
            pause = response.headers.get("Retry-After")
            if pause is not None and not (pause.isdigit() and int(pause) <= _LONGEST_PAUSE):
                response.headers["Retry-After"] = str(_LONGEST_PAUSE)
            return response

    class Refusing(HTTPAdapter):
        def send(self, *_: Any, **__: Any) -> Response:
            # The session has the token in its headers, and would send it to any server that the API names.
            raise InvalidURL("the API names another server")

    parts = urlsplit(url)
    client.session.mount("https://", Refusing())
    client.session.mount("http://", Refusing())
    # The longest prefix counts.
    client.session.mount(f"{parts.scheme}://{parts.netloc}/", Patient())


def _unknown_host(url: str) -> HostNotFoundError:
    return HostNotFoundError(
        f"The host of the API {url} does not resolve.",
        location=url,
        found=urlsplit(url).hostname,
        next_step="Check api_url (--api-url) and the network.",
    )


def _check_version(archive: Archive) -> None:
    from dandi import __version__
    from packaging.version import Version

    with _translated(archive, "its version"):
        info = archive.client.server_info
        oldest, bad = info["cli-minimal-version"], info["cli-bad-versions"]
        if Version(__version__) >= Version(oldest) and __version__ not in bad:
            return
    raise MissingPackageError(
        f"The archive at {archive.url} does not accept the installed release of dandi.",
        location=archive.url,
        found=__version__,
        expected=f">={oldest}",
        next_step="Update it with: pip install --upgrade --no-deps dandi.",
    )


def _variable(client: Any) -> str:
    name = re.sub(r"\W", "_", client.api_key_env_var, flags=re.ASCII)
    # A shell sets no variable whose name begins with a digit.
    return f"DANDI_{name}" if name[0].isdigit() else name


def _checked_token(token: object, source: str) -> str:
    if isinstance(token, str) and re.fullmatch(r"[!-~]+", token.strip()):
        return token.strip()
    raise OptionError(f"The token {source} is not an API key.", expected="an API key of the archive")


def _from_keyring(name: str) -> str | None:
    import keyring
    from keyring.errors import KeyringError

    try:
        # Where `dandi upload` and other commands of the client keep it.
        return keyring.get_password(f"dandi-api-{name}", "key")
    except (KeyringError, OSError, RuntimeError):
        return None


@contextmanager
def _translated(archive: Archive, what: str) -> Iterator[None]:
    """Raise the errors of the client as errors of this package, without the requests that they quote."""
    import requests
    from dandi.exceptions import NotFoundError

    url = archive.url
    try:
        yield
    except (NWBZarrError, NotFoundError):
        raise
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _refusal(archive, what, status) from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
        raise ResponseError(
            f"The API {url} refers to another server for {what}. It is not asked.",
            location=url,
            next_step="Pass the address of the API itself as api_url (--api-url).",
        ) from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise TransportError(
            f"The API {url} could not be reached for {what} ({type(error).__name__}), after the client's "
            "retries.",
            location=url,
            next_step="Check the network and api_url (--api-url), and try again later.",
            transient=True,
        ) from None
    except (
        requests.RequestException,
        ValueError,
        KeyError,
        TypeError,
        AssertionError,
        AttributeError,
    ) as error:
        raise ResponseError(
            f"{url} did not answer as a DANDI API does when asked for {what}.",
            location=url,
            found=type(error).__name__,
            next_step=f"Pass the URL of an API as api_url (--api-url), such as {DANDI_API}.",
        ) from None


def _refusal(archive: Archive, what: str, status: int) -> NWBZarrError:
    url, source = archive.url, archive.token_source
    variable = _variable(archive.client)
    facts: dict[str, Any] = {"location": url, "found": status}
    if status == 401 and source is not None:
        return CredentialsError(
            f"The archive at {url} does not accept the token {source}.",
            next_step=f"Pass another one as token= or in the environment variable {variable}: it is in the "
            "archive's menu under your initials.",
            **facts,
        )
    if status == 401:
        return CredentialsError(
            f"The archive at {url} shows {what} to signed-in users only: it is embargoed.",
            next_step="Pass the token of one of its owners as token=, in the environment variable "
            f"{variable}, or in the keyring of the dandi client.",
            **facts,
        )
    if status == 403:
        return AccessError(
            f"The archive at {url} does not show {what} to the owner of the token: it is embargoed.",
            next_step="Ask the owners of the dandiset to add you.",
            **facts,
        )
    if status == 429 or status >= 500:
        return TransportError(
            f"The API {url} answered {status} for {what}, after the retries of the client.",
            next_step="Try again later.",
            transient=True,
            **facts,
        )
    return ResponseError(
        f"The API {url} answered {status} for {what}.",
        next_step=f"Pass the URL of an API as api_url (--api-url), such as {DANDI_API}.",
        **facts,
    )
