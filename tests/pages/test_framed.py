"""Pages in a frame of another server's page, as MLflow shows artifacts."""

import base64
import re
from hashlib import sha256

import pytest

from lorif_assets.pages.framed import framed_page

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>A report</title></head>
<body>
<a href="../comparison/questions.html">Other checkpoints</a> <a id="down" href="#query-2">Query 2</a>
<p>&lt;/body&gt; &lt;a href=&#34;../x&#34;&gt;</p>
<div style="height: 5000px"></div>
<h2 id="query-2">Query 2</h2>
<div style="height: 5000px"></div>
</body></html>
"""


def test_links_to_other_pages_lead_to_the_explorer_and_texts_stay_as_they_are():
    page = framed_page(PAGE, "http://127.0.0.1:7411")
    assert 'href="http://127.0.0.1:7411/reports/comparison/questions.html"' in page
    assert "&lt;/body&gt; &lt;a href=&#34;../x&#34;&gt;" in page


def test_addresses_of_servers_that_are_shown_in_no_frame_are_no_links():
    where = "http://localhost:3000/runs/7"
    page = framed_page(
        PAGE.replace("Query 2</a>", f'Query 2</a> <a href="{where}">{where}</a>'), "http://127.0.0.1:7411"
    )
    assert f'href="{where}"' not in page
    assert f"Query 2</a> {where}" in page


def test_no_script_but_its_own_may_run():
    page = framed_page(PAGE, "http://127.0.0.1:7411")
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert f"img-src data:; script-src 'sha256-{digest}'\">" in page


@pytest.mark.slow
def test_links_within_a_page_work_in_a_frame_that_nothing_leads_out_of(chromium):
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    page.evaluate(
        """(text) => {
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.src = URL.createObjectURL(new Blob([text], { type: "text/html" }));
          document.body.append(frame);
        }""",
        framed_page(PAGE, "http://127.0.0.1:7411"),
    )
    inside = page.frame_locator("iframe")
    inside.locator("#down").click()
    page.frames[1].wait_for_function("scrollY > 4000")
    page.close()
