"""Puts pages and pictures of the repository that are not in docs/ into the site, under the links that GitHub follows too."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parent.parent
_OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "benchmarks/results/*.svg")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Add the files outside of docs/."""
    for pattern in _OUTSIDE:
        for path in sorted(_ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(_ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links between docs/ and the rest of the repository into links within the site, where docs/ is the root."""
    name = page.file.src_uri
    if "/" in name:
        return markdown.replace("](../docs/", "](../")
    if (_ROOT / "docs" / name).exists():
        return markdown.replace("](../", "](")
    return markdown.replace("](docs/", "](")
