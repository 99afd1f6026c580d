"""Everything public is documented, every SQL model says its grain, every link and code block holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import duckdb
import pytest

import m6rec_udf
from m6rec_udf.arguments import VERBS
from m6rec_udf.functions import FUNCTIONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for folder in ("docs", "sql", "warehouse") for page in (ROOT / folder).rglob("*.md"))]
)
MODELS = sorted(path for path in (ROOT / "sql").rglob("*.sql") if path.parent.name != "macros")
MACROS = sorted((ROOT / "sql" / "macros").glob("*.sql"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def documentation() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in DOCS)


def blocks(language: str) -> list[object]:
    return [
        pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, (kind, code) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if kind == language
    ]


def anchors(page: Path) -> set[str]:
    """The anchors a code host gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_verb_of_the_command_line_is_documented() -> None:
    text = documentation()
    assert VERBS
    assert [verb for verb in VERBS if f"m6rec {verb}" not in text] == []


def test_every_public_name_is_documented() -> None:
    text = documentation()
    assert m6rec_udf.__all__
    missing = [n for n in m6rec_udf.__all__ if not n.startswith("__") and not re.search(rf"`[^`\n]*\b{n}\b", text)]
    assert missing == []


def test_every_macro_and_view_is_documented() -> None:
    text = documentation()
    assert MACROS, "sql/macros is empty"
    named = [*MACROS, *sorted((ROOT / "sql" / "views").glob("*.sql"))]
    assert [path.stem for path in named if not re.search(rf"\bm6\.{path.stem}\b", text)] == []


def test_every_registered_function_is_documented() -> None:
    text = documentation()
    assert [function.name for function in FUNCTIONS if f"`{function.name}(" not in text] == []


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_says_its_grain(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"-- one row( per |[:,] )", first), f"line 1 of {path.relative_to(ROOT)} is {first!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))


def commands(text: str) -> list[str]:
    """Lines of shell, SQL and Python blocks without their comments."""
    lines = []
    for kind, code in BLOCK.findall(text):
        if kind in {"sh", "sql", "python"}:
            lines += [line.partition("--" if kind == "sql" else "#")[0].rstrip() for line in code.splitlines()]
    return [line for line in lines if line]


def sections(text: str) -> list[str]:
    """The text of each section, the first one without a heading."""
    return re.split(r"^## .*$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE)


def figures(section: str) -> list[str]:
    """Numbers of a section, without those inside names, links and code; 2 亿 is 200 million."""
    plain = re.sub(r"\]\([^)]*\)|`[^`]*`|https?://\S+", " ", section)
    plain = plain.replace("2 亿", "200").replace("5,000 万", "50")
    return sorted(re.findall(r"(?<![A-Za-z\d.@-])[+-]?\d[\d,]*(?:\.\d+)?", plain))


def test_pages_of_both_languages_have_the_same_commands() -> None:
    assert len(commands(ENGLISH)) > 30
    assert commands(CHINESE) == commands(ENGLISH)


def test_pages_of_both_languages_have_the_same_sections_links_and_tables() -> None:
    pages = [sections(ENGLISH), sections(CHINESE)]
    assert len(pages[0]) == len(pages[1]) > 10
    for one, other in zip(*pages, strict=True):
        links = [sorted(set(LINK.findall(part)) - {"README.md", "README.zh.md"}) for part in (one, other)]
        assert links[0] == links[1]
        rows = [[line.count("|") for line in part.splitlines() if line.startswith("|")] for part in (one, other)]
        assert rows[0] == rows[1]


def test_pages_of_both_languages_have_the_same_figures() -> None:
    for one, other in zip(sections(ENGLISH), sections(CHINESE), strict=True):
        assert figures(other) == figures(one), one.strip()[:60]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_are_python_and_use_public_names(code: str) -> None:
    tree = ast.parse(code)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "m6"
    }
    assert used <= set(m6rec_udf.__all__), f"not public: {sorted(used - set(m6rec_udf.__all__))}"


@pytest.mark.parametrize("code", blocks("sql"))
def test_sql_blocks_parse_and_name_macros_that_exist(code: str) -> None:
    assert duckdb.connect().extract_statements(code)
    called = set(re.findall(r"\bm6\.([a-z_]+)\(", code))
    assert called <= {path.stem for path in MACROS}, f"no such macro: {sorted(called - {p.stem for p in MACROS})}"


def test_the_contract_page_names_every_table() -> None:
    text = (ROOT / "warehouse" / "README.md").read_text(encoding="utf-8")
    migrations = sorted((ROOT / "warehouse" / "migrations").glob("*.sql"))
    created = re.compile(r"create table (?:if not exists )?(m6\.[a-z_]+)")
    tables = [table for path in migrations for table in created.findall(path.read_text(encoding="utf-8"))]
    assert tables
    assert [table for table in tables if f"`{table}`" not in text] == []
