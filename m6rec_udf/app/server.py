"""Show the page: check what it needs, open the file, serve on this machine only."""

from __future__ import annotations

import socket
import threading
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from m6rec_udf.errors import MissingExtraError, ParameterError

if TYPE_CHECKING:
    from m6rec_udf.embed import EncoderLike

HOST = "127.0.0.1"
PORT = 2719
PAGE = Path(__file__).with_name("page.py")
_SHARED: list[duckdb.DuckDBPyConnection] = []


def shared() -> duckdb.DuckDBPyConnection:
    """A cursor of its own on the file that this process serves: one for each open page."""
    return _SHARED[-1].cursor()


def run(
    database: str | Path,
    *,
    encoder: EncoderLike | None = None,
    project: str | Path | None = None,
    port: int = PORT,
    is_opening: bool = True,
) -> None:
    """Serve the app on ``127.0.0.1`` until Ctrl-C.

    It has no login, so it listens on this machine only; the file is open for writing meanwhile.

    Raises:
        MissingExtraError: marimo is not installed.
        NotBuiltError: the file holds no build.
        LockedError: another process has the file open.
        ParameterError: the port is taken.
    """
    if find_spec("marimo") is None:
        raise MissingExtraError("the app needs marimo, which is not installed", "pip install 'm6rec[app]'")
    import marimo
    import uvicorn

    from m6rec_udf.connection import connect
    from m6rec_udf.publish import require_built

    require_free(port)
    con = connect(database, encoder=encoder, project=project)
    try:
        require_built(con)
        _SHARED.append(con)
        app = marimo.create_asgi_app(quiet=True).with_app(path="/", root=str(PAGE)).build()
        address = f"http://{HOST}:{port}"
        print(f"{database}: {address} (stop with Ctrl-C)", flush=True)
        if is_opening:
            threading.Timer(1.0, webbrowser.open, [address]).start()
        uvicorn.run(app, host=HOST, port=port, log_level="warning")
    finally:
        _SHARED.clear()
        con.close()


def require_free(port: int) -> None:
    """Raise ParameterError where the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ParameterError(f"port {port} is taken, expected a free one", "name another with --port") from error
