"""The pages say what is there: paths, links, sections of the method, generated blocks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lorif_assets.config.settings import Settings
from tests.docs.pages import PAGES, ROOT, anchors, headings, links, prose, spans, text

_PATH = re.compile(r"(lorif_assets|resources|tests|docs|deploy|benchmarks)/[\w./-]*")
_SETTING = re.compile(r"(\w+)\.(\w+)( = .+)?")
_CITATION = re.compile(r"[(;] ?docs/method\.md: ([a-z][a-z0-9 ]+)")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_readme_fits_a_reader_s_patience() -> None:
    assert len(text("README.md").splitlines()) <= 200


def test_generated_blocks_are_current() -> None:
    checked = _run("docs/generate.py", "--check")
    assert checked.returncode == 0, f"{checked.stdout}{checked.stderr}run `make docs`"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    missing = [span for span in spans(page) if _PATH.fullmatch(span) and not (ROOT / span).exists()]
    assert not missing, f"{page} names paths that are not there"


def test_the_table_of_what_to_touch_names_paths_in_every_row() -> None:
    rows = re.findall(r"^\| (an? [\w -]+) \| (.+) \| (.+) \|$", prose("CONTRIBUTING.md"), re.MULTILINE)
    assert {thing for thing, _, _ in rows} == {
        "a comparison method",
        "a curvature",
        "a training-data format",
        "a page",
        "an asset",
        "a check",
        "a question to the explorer",
        "a command",
        "a setting",
    }
    for thing, touched, _ in rows:
        named = [span for span in re.findall(r"`([^`]+)`", touched) if _PATH.fullmatch(span)]
        assert named, f"{thing}: no path is named"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_settings_exist(page: str) -> None:
    for span in spans(page):
        found = _SETTING.fullmatch(span)
        if found and found[1] in Settings.model_fields and found[2] not in {"md", "toml"}:
            section = Settings.model_fields[found[1]].annotation
            fields = getattr(section, "model_fields", {})
            assert found[2] in fields, f"{page}: {span} is no setting"


def test_sections_of_the_method_that_docstrings_cite_exist() -> None:
    sections = [heading.lower() for heading in headings("docs/method.md")]
    cited = {
        (file.name, name.strip().lower())
        for folder in ("lorif_assets", "resources")
        for file in (ROOT / folder).rglob("*.py")
        for name in _CITATION.findall(file.read_text())
    }
    assert len(cited) > 5
    for file, name in cited:
        assert any(section.startswith(name) for section in sections), f"{file} cites (method: {name})"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = _run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"))
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text())
        assert not loaded, f"{page.name} loads {loaded[0]} from elsewhere"
