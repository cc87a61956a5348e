"""Pages of Dagster's UI in headless Chromium, opened until what they are for shows."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from copied_shards import shard_name
from dagster_project import CHECKPOINT
from playwright.sync_api import Error, Page, sync_playwright

SHOWS_WITHIN = 60_000  # milliseconds
FACTORS = "/assets/gradient_factors?view="


@contextmanager
def opened_pages(address: str, shards: int, partitions: int) -> Iterator[dict[str, Callable[[], object]]]:
    """Start a browser, and give by name what opens a page and waits until its data show.

    The browser is the system's Chromium, else playwright's own.

    Raises:
        FileNotFoundError: there is neither.
    """
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(program).is_file():
            raise FileNotFoundError("there is no Chromium; `playwright install chromium` brings one")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        # As large as it takes for the graph to show more of an asset than its name.
        page = browser.new_page(viewport={"width": 2_800, "height": 1_600})
        page.set_default_timeout(SHOWS_WITHIN)
        # The browser starts its processes for the server's pages, before the first one of the UI is timed.
        page.goto(f"{address}/server_info")

        def opened(path: str, text: str | re.Pattern[str]) -> Callable[[], object]:
            return lambda: waited_for(page, address + path, text)

        # Large numbers are shortened in some places.
        many = re.compile(f"{partitions:,} partitions|{partitions // 1_000}[kK] partitions")
        yield {
            "graph": opened("/locations/lorif_assets.definitions/asset-groups/attribution/lineage", many),
            "catalog": opened("/assets", many),
            "automation": opened("/automation", "re_attribution_sensor"),
            "factors, overview": opened(f"{FACTORS}overview", f"{CHECKPOINT}|{shard_name(shards - 1)}"),
            "factors, dialog to materialize": lambda: open_dialog(page),
            "factors, partitions": opened(f"{FACTORS}partitions", f"Materialized ({partitions})"),
            "factors, one partition": lambda: choose_shard(page, shard_name(1)),
        }
        browser.close()


def waited_for(page: Page, address: str, text: str | re.Pattern[str]) -> None:
    """Open a page and wait until a text shows; where it does not, say so, with a picture of the page."""
    page.goto(address)
    try:
        page.get_by_text(text).first.wait_for()
    except Error:
        with tempfile.NamedTemporaryFile(suffix=".png", delete=False) as picture:
            page.screenshot(path=picture.name)
        print(f"{address} does not show {text} within {SHOWS_WITHIN / 1_000:.0f} s; it shows {picture.name}")


def open_dialog(page: Page) -> None:
    """Ask to materialize the asset of the page, and wait until its partitions can be chosen."""
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("Partition selection").wait_for()
    page.get_by_text("All", exact=True).nth(1).wait_for()


def choose_shard(page: Page, shard: str) -> None:
    """Click a shard in the list of partitions, and wait for its last materialization."""
    page.get_by_text(shard).first.click()
    page.get_by_text("View all historical events (1)").wait_for()
