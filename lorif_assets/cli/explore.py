"""`lorif explore`: walk through influences in a browser, by a program or with an assistant."""

import socket
import webbrowser
from contextlib import closing

import click

from lorif_assets.cli.environment import config_option, dagster_home
from lorif_assets.errors import SettingsError

_HOST = "127.0.0.1"
_PORT = 7411


@click.command()
@click.option("--port", default=_PORT, show_default=True, help="Port of the web server, on this machine alone.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open a browser.")
@click.option(
    "--mcp", is_flag=True, help="In place of pages: answer an assistant, by MCP on standard input and output."
)
@config_option
def explore(port: int, *, opens: bool, mcp: bool) -> None:
    """Walk through influences: pages, a JSON API, or an assistant's tools."""
    from lorif_assets.explorer.explorer import Explorer

    explorer = Explorer.open(dagster_home())
    if mcp:
        from lorif_assets.explorer.mcp_tools import serve

        serve(explorer)
        return
    import uvicorn

    from lorif_assets.explorer.application import application

    _refuse_taken(port)
    address = f"http://{_HOST}:{port}/"
    click.echo(f"Explore influences at {address} (the API: {address}api/openapi.json). Ctrl-C ends it.")
    if opens:
        webbrowser.open(address)
    uvicorn.run(
        application(explorer), host=_HOST, port=port, log_level="warning", access_log=False, server_header=False
    )


def _refuse_taken(port: int) -> None:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise SettingsError(
                f"port {port} of {_HOST} is taken or not allowed ({error.strerror}): end the program that has it, or "
                "give another `--port`"
            ) from error
