"""What the documents say is there, is there, and the other way round."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules

import pytest

import prunella.cli
import prunella.core.guards
from prunella.config import Registry, parse
from prunella.core.guards import guards
from prunella.core.machine import TRANSITIONS, Event, Phase
from prunella.core.model import Cause, ServiceId, Verdict
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.testing.clock import SimClock

ROOT = Path(__file__).parents[2]
NOT_OURS = {".venv", ".git", "build", "dist", ".pytest_cache", "node_modules"}
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not NOT_OURS.intersection(path.relative_to(ROOT).parts)
)
every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def read(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for named, block in found if named == language]


def cells(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip()[1:-1].split("|")]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_its_relative_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text()))
    broken: list[str] = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_every_guard_has_its_row_with_whether_it_yields() -> None:
    model = read("docs/healing-model.md")
    rows = {row[0]: row[-1] for row in cells(model) if row[0].startswith("[`")}
    said = {
        re.sub(r"\W*`.*", "", key.removeprefix("[`")): yields == "yes"
        for key, yields in rows.items()
    }
    assert said == {guard.name: guard.yields for guard in guards()}


def test_every_guard_file_is_linked_from_the_healing_model() -> None:
    model = read("docs/healing-model.md")
    files = [module.name for module in iter_modules(prunella.core.guards.__path__)]
    assert [name for name in files if f"core/guards/{name}.py)" not in model] == []


def test_the_transition_table_is_the_one_that_runs() -> None:
    phases = {f"`{phase}`" for phase in Phase}
    rows = [
        [cell.strip("`") for cell in row[:3]]
        for row in cells(read("docs/healing-model.md"))
        if len(row) == 4 and row[0] in phases
    ]
    said = {(Phase(phase), Event(event)): Phase(after) for phase, event, after in rows}
    assert len(said) == len(rows)
    assert said == dict(TRANSITIONS)


def test_the_diagram_of_the_phases_is_the_one_that_runs() -> None:
    (diagram,) = blocks(read("docs/healing-model.md"), "mermaid")
    arrows = re.findall(r"^ +(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
    said = {
        (Phase(phase), Event(event)): Phase(after)
        for phase, after, events in arrows
        for event in events.split(", ")
    }
    assert said == dict(TRANSITIONS)


def test_every_folder_has_its_paragraph() -> None:
    folders = {
        path.parent.name for path in (ROOT / "src" / "prunella").glob("*/*.py") if path.is_file()
    }
    said = set(re.findall(r"^### `(\w+)/`\n\S", read("docs/architecture.md"), re.MULTILINE))
    assert said == folders


def test_the_layers_are_those_that_are_checked() -> None:
    contract = re.search(
        r"^layers = \[\n(.*?)^\]", read("pyproject.toml"), re.MULTILINE | re.DOTALL
    )
    assert contract is not None
    checked = re.findall(r'"(.+)"', contract[1].replace("prunella.", ""))
    text = read("docs/architecture.md")
    said = next(block for block in blocks(text, "") if block.startswith("cli\n"))
    assert said.splitlines() == checked


def test_every_decision_is_listed_in_order() -> None:
    listed = re.findall(r"\(adr/([^)]+)\)", read("docs/architecture.md"))
    assert listed == sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))


@pytest.mark.parametrize(
    "record", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda p: p.stem
)
def test_a_decision_has_context_decision_and_consequences(record: Path) -> None:
    text = record.read_text()
    assert text.startswith(f"# {record.name[:4]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_every_command_is_in_the_readme_and_no_other() -> None:
    modules = {module.name for module in iter_modules(prunella.cli.__path__)}
    commands = {name for name in modules if not name.startswith("_")}
    said = re.findall(r"^\| `prunella ([a-z-]+)[^`]*` \|", read("README.md"), re.MULTILINE)
    assert len(said) == len(set(said))
    assert set(said) == commands


@every_document
def test_its_configurations_are_accepted(document: Path, heartbeat: ProbePlugin) -> None:
    found = Registry.discovered()
    registry = replace(found, probes={**found.probes, "heartbeat": heartbeat})
    for block in blocks(document.read_text(), "yaml"):
        config = parse(block, document, registry)
        assert config.services or config.operator


@every_document
def test_its_programs_compile(document: Path) -> None:
    for block in blocks(document.read_text(), "python"):
        compile(block, str(document), "exec")


@pytest.fixture
def heartbeat(tmp_path: Path) -> Iterator[ProbePlugin]:
    """The probe of the page on how to add one, imported from the page itself."""
    file = tmp_path / "heartbeat.py"
    file.write_text(blocks(read("docs/add-a-probe.md"), "python")[0])
    spec = spec_from_file_location("heartbeat", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["heartbeat"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.PLUGIN
    del sys.modules["heartbeat"]


@pytest.mark.parametrize(
    ("age_s", "verdict", "cause"),
    [
        pytest.param(10, Verdict.PASS, None, id="young"),
        pytest.param(100, Verdict.FAIL, Cause.TIMEOUT, id="old"),
        pytest.param(None, Verdict.FAIL, Cause.REFUSED, id="missing"),
    ],
)
async def test_the_example_of_a_probe_runs(
    heartbeat: ProbePlugin,
    tmp_path: Path,
    age_s: float | None,
    verdict: Verdict,
    cause: Cause | None,
) -> None:
    clock, file = SimClock(), tmp_path / "beat"
    if age_s is not None:
        file.touch()
        written = clock.wall().timestamp() - age_s
        os.utime(file, (written, written))
    spec = heartbeat.spec.model_validate({"file": str(file), "max_age": "30s"})
    context = ProbeContext(ServiceId("nightly"), clock, lambda _of: ())
    probe = heartbeat.build(spec, context)
    seen = await probe.check()
    await probe.close()
    assert (seen.verdict, seen.cause) == (verdict, cause)


@pytest.mark.parametrize("lock", ["run", "dev", "charts"])
def test_a_lock_pins_everything_to_hashes_and_nothing_to_one_place(lock: str) -> None:
    text = read(f"requirements/{lock}.txt")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert all(re.match(r"[a-z0-9.-]+==\S+", entry) for entry in entries)
    assert re.findall(r"://|--(?:extra-)?index|--find-links|--trusted|^-", text, re.MULTILINE) == []
