"""`lorif explore`: walk through influences in a browser, by a program or with an assistant."""

import socket
import webbrowser
from contextlib import suppress
from pathlib import Path
from threading import Thread

import click

from lorif_assets.cli.environment import config_option, dagster_home
from lorif_assets.errors import SettingsError
from lorif_assets.pages.explorer.page import PORT

_HOST = "127.0.0.1"


@click.command()
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port of the web server, on this machine alone; 0: any that is free.",
)
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open a browser.")
@click.option(
    "--mcp", is_flag=True, help="In place of pages: answer an assistant, by MCP on standard input and output."
)
@click.option(
    "--allow-writing",
    "selections",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="Let pages, programs and assistants write selections of training data into this folder. Default: they write nothing.",
)
@config_option
def explore(port: int, *, opens: bool, mcp: bool, selections: Path | None) -> None:
    """Walk through influences: pages, a JSON API, or an assistant's tools."""
    from lorif_assets.explorer.explorer import Explorer

    explorer = Explorer.open(dagster_home(), selections=selections)
    if mcp:
        from lorif_assets.explorer.mcp_tools import serve

        serve(explorer)
        return
    import uvicorn

    from lorif_assets.explorer.application import application

    # Ctrl-C is how it is meant to end.
    with _listening(port) as listener, suppress(KeyboardInterrupt):
        address = f"http://{_HOST}:{listener.getsockname()[1]}/"
        click.echo(f"Explore influences at {address} (the API: {address}api/openapi.json). Ctrl-C ends it.")
        if opens:
            # What the browser asks before the server has started waits in the socket.
            Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(application(explorer), log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        SettingsError: the port is taken, or not allowed.
    """
    try:
        return socket.create_server((_HOST, port))
    except OSError as error:
        raise SettingsError(
            f"port {port} of {_HOST} is taken or not allowed ({error.strerror}): end the program that has it, or give another "
            "`--port`"
        ) from error
