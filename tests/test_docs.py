"""What the documents name is there: every test of the table of faults, every file that is linked."""

import re
from pathlib import Path

import pytest

from diffaudit.settings import load_audit

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("benchmarks/*/*.md")])


def test_every_test_that_the_table_of_faults_names_is_there() -> None:
    missing, named = [], 0
    for line in (REPOSITORY / "docs" / "what-we-changed.md").read_text(encoding="utf-8").splitlines():
        page = ""
        for path, name in re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", line):
            page, named = path or page, named + 1
            if f"def {name}(" not in (REPOSITORY / "tests" / page).read_text(encoding="utf-8"):
                missing.append(f"{page}::{name}")
    assert named > 100
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_links_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_settings_file_of_the_readme_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names = []
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, encoding="utf-8")
        names.append((load_audit(path).audit, load_audit(path).name))
    assert names == [("inversion", "mine"), ("perturbation", "mine")]
