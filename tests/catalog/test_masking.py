"""Masks: no secret is shown, and nothing else is hidden."""

from __future__ import annotations

from typing import Any

import pytest

from intake_nwbzarr.catalog.entries import MASK, masked_options, masked_url


@pytest.mark.parametrize(
    "options",
    [
        {"key": "CANARY"},
        {"secret": "CANARY", "token": "CANARY"},
        {"client_kwargs": {"aws_secret_access_key": "CANARY"}},
        {"headers": {"X-Anything": "CANARY"}},
        {"client_kwargs": {"auth": ["me", "CANARY"]}},
        {"s3": {"password": "CANARY"}, "simplecache": {"cache_storage": "/tmp"}},
        {"account_key": "CANARY", "connection_string": "CANARY", "sas_token": "CANARY"},
        {"endpoint_url": "http://me:CANARY@host:9000"},
        {"urls": ["https://host/a?X-Amz-Signature=CANARY"]},
    ],
)
def test_secrets_are_masked_wherever_they_stand(options: dict[str, Any]) -> None:
    shown = repr(masked_options(options))
    assert "CANARY" not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "options",
    [
        {"anon": True, "requester_pays": False},
        {"profile": "lab", "client_kwargs": {"region_name": "eu-west-1", "endpoint_url": "http://host:9000"}},
        {"key": "{{ env(LAB_KEY) }}", "secret": "{env(LAB_SECRET)}"},
        {"timeouts": {"connect": 5.0}},
        {"key": None, "secret": ""},
    ],
)
def test_everything_else_is_shown(options: dict[str, Any]) -> None:
    assert masked_options(options) == options


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://AKIA:ab/c+d@bucket/key", "s3://****@bucket/key"),
        ("simplecache::s3://AKIA:abc@bucket/key", "simplecache::s3://****@bucket/key"),
        ("https://token@host/a", "https://****@host/a"),
        ("https://host/a?X-Amz-Signature=1&b=2#c", "https://host/a?****#****"),
        ("s3://bucket/me@home.nwb.zarr", "s3://bucket/me@home.nwb.zarr"),
        ("http://host:8080/me@home.nwb.zarr", "http://host:8080/me@home.nwb.zarr"),
        ("/data/what?.nwb.zarr", "/data/what?.nwb.zarr"),
    ],
)
def test_urls_lose_names_passwords_and_signatures(url: str, shown: str) -> None:
    assert masked_url(url) == shown
