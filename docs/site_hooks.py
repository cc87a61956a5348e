"""Puts into the site what is not Markdown in docs/: pages and pictures of the repository, and the notebooks, as pages.

Links stay those that GitHub follows.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parent.parent
_OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "benchmarks/results/*.svg")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Add the files outside of docs/, and a page for each notebook."""
    for pattern in _OUTSIDE:
        for path in sorted(_ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(_ROOT).as_posix(), abs_src_path=str(path)))
    for path in sorted((_ROOT / "docs/notebooks").glob("*.ipynb")):
        page = notebook_page(json.loads(path.read_text()))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links between docs/ and the rest of the repository into links within the site, where docs/ is the root."""
    markdown = re.sub(r"\]\((notebooks/[\w-]+)\.ipynb\)", r"](\1.md)", markdown)
    name = page.file.src_uri
    if "/" in name:
        return markdown.replace("](../docs/", "](../")
    if (_ROOT / "docs" / name).exists():
        return markdown.replace("](../", "](")
    return markdown.replace("](docs/", "](")


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown: its text, its code, and what the code printed and showed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        parts += [_shown(output) for output in cell.get("outputs", ())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    if html := data.get("image/svg+xml", data.get("text/html")):
        # A blank line would end the block of HTML.
        return "<div>\n" + re.sub(r"\n\s*\n", "\n", html.strip()) + "\n</div>"
    plain = data.get("text/plain", "".join(output.get("text", ()))).rstrip()
    return f"```text\n{plain}\n```" if plain else ""
