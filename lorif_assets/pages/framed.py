"""Stored pages within another server's page, as MLflow shows artifacts: in a frame that nothing leads out of."""

import base64
import re
from hashlib import sha256

_RELATIVE_LINK = re.compile(r'href="\.\./([^"]+)"')
_SHOWN_ADDRESS = re.compile(r'<a href="(https?://[^"]+)">\1</a>')
_POLICY = re.compile(r"(<meta http-equiv=\"Content-Security-Policy\" content=\"[^\"]*)")
# In a frame of no origin, whose address is that of a blob, browsers follow no link within the page.
_SCRIPT = """addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  event.preventDefault();
  document.getElementById(decodeURIComponent(link.hash.slice(1)))?.scrollIntoView();
});"""


def framed_page(page: str, explorer: str) -> str:
    """Return a page that works where no other page of the lake is beside it, and links to its own parts lead nowhere.

    Args:
        page: a report or a comparison.
        explorer: the explorer's address, where it serves the others.
    """
    # Servers that are shown in no frame would leave an empty one behind; their address can still be copied.
    linked = _RELATIVE_LINK.sub(rf'href="{explorer}/reports/\g<1>"', _SHOWN_ADDRESS.sub(r"\g<1>", page))
    digest = base64.b64encode(sha256(_SCRIPT.encode()).digest()).decode()
    allowed = _POLICY.sub(rf"\g<1>; script-src 'sha256-{digest}'", linked)
    return allowed.replace("</body>", f"<script>{_SCRIPT}</script>\n</body>", 1)
