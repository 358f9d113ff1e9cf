"""The option `--db`: one line before the first test says what is missing."""

from __future__ import annotations

import socket

import pytest

from tests import database


@pytest.fixture(params=database.DRIVERS)
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(database.VARIABLE, request.param)
    return str(request.param)


def test_a_driver_that_is_not_installed(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database.DRIVERS, chosen, "no_such_driver")

    with pytest.raises(pytest.UsageError, match=rf"--db={chosen} needs no_such_driver: pip install"):
        database.require(chosen)


def test_a_server_that_is_not_there(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # This driver is installed, whether or not the real one is.
    monkeypatch.setitem(database.DRIVERS, chosen, "socket")
    with socket.socket() as unheard:
        # The port is bound but not listening, so nothing else can answer there.
        unheard.bind(("127.0.0.1", 0))
        address, port = unheard.getsockname()
        for prefix in ("PG", "MARIADB_", "MYSQL_"):
            monkeypatch.setenv(f"{prefix}HOST", address)
            monkeypatch.setenv(f"{prefix}PORT", str(port))

        with pytest.raises(pytest.UsageError, match=rf"--db={chosen}: no server at {address}:{port}: "):
            database.require(chosen)
