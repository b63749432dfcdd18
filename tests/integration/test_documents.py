"""What the documents show works: every example file, and every ``python`` block of README and docs, is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path

import pytest

import penstock
import penstock.otp
import penstock.testing
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.server import LoopbackProvider

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (path, number, text) for path in DOCUMENTS for number, text in enumerate(BLOCK.findall(path.read_text("utf-8")))
]
SHOWN = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```",
    (ROOT / "docs" / "quickstart.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(default_script(tokens_per_second=400)) as provider:
        yield provider


def run(code: list[str], provider: LoopbackProvider, folder: Path) -> str:
    users = ("PENSTOCK_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "OLLAMA_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(users)}
    environment |= {
        "OPENAI_API_KEY": "sk-not-a-key",
        "OPENAI_BASE_URL": provider.base_url,
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [sys.executable, *code], env=environment, cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("path", "number", "text"), BLOCKS, ids=[f"{path.name}-{number}" for path, number, _ in BLOCKS]
)
def test_a_block_of_code_in_the_documents_runs(
    path: Path, number: int, text: str, provider: LoopbackProvider, tmp_path: Path
) -> None:
    run(["-c", text], provider, tmp_path)


def test_the_embedding_example_of_the_readme_says_what_the_model_says(
    provider: LoopbackProvider, tmp_path: Path
) -> None:
    text = next(text for path, _, text in BLOCKS if path.name == "README.md")
    assert len([line for line in text.splitlines() if line.strip()]) <= 10
    output = run(["-c", text], provider, tmp_path)
    assert "output_tokens" in output
    assert "handler" in output
    assert provider.requests[-1].model == "gpt-4.1-mini"


@pytest.mark.parametrize(("code", "output"), SHOWN, ids=range(len(SHOWN)))
def test_the_quickstart_prints_what_it_shows(
    code: str, output: str, provider: LoopbackProvider, tmp_path: Path
) -> None:
    printed = run(["-c", code], provider, tmp_path)
    assert OutputChecker().check_output(without_measures(output), without_measures(printed), ELLIPSIS), printed


def test_the_quickstart_shows_the_output_of_all_its_programs_but_the_one_that_needs_a_key() -> None:
    assert len(SHOWN) == len([path for path, _, _ in BLOCKS if path.name == "quickstart.md"]) - 1 > 0


def without_measures(output: str) -> str:
    """The part of an output that is the same in every run: without numbers, lists of numbers, and states."""
    return re.sub(r"\(.*?\)|\d[\d., ]*", "0", output)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(example: Path, provider: LoopbackProvider, tmp_path: Path) -> None:
    assert run([str(example)], provider, tmp_path).strip()


COOKBOOK = (ROOT / "docs" / "cookbook.md").read_text("utf-8")


def test_the_cookbook_shows_the_examples_as_they_are() -> None:
    examples = {path.read_text("utf-8") for path in (ROOT / "examples").glob("*.py")}
    shown = BLOCK.findall(COOKBOOK)
    assert shown
    assert set(shown) <= examples


@pytest.mark.timeout(400)  # they are forty programs, one after the other
def test_the_examples_say_what_they_promise(provider: LoopbackProvider, tmp_path: Path) -> None:
    said = {path.stem: run([str(path)], provider, tmp_path) for path in (ROOT / "examples").glob("*.py")}
    assert "Water finds its way, token by token." in said["quickstart"]
    assert "late reader: [2, 3, 4]" in said["actor_subscriber"]
    assert "To be, or not to be." in said["actor_subscriber"]
    assert "given up: no subscriber is left" in said["asyncio_backend"]
    assert "retried: The turbine turns, and nobody notices the gate.\n  2 attempt(s)" in said["failures"]
    assert "truncated: IncompleteStream" in said["failures"]
    assert "stalled: ProviderTimeout: idle" in said["failures"]
    assert "WHISPER THIS, PLEASE" in said["chained"]
    assert said["source_text"].endswith("The gate opens. Water finds its way, and the turbine turns.\n100%\n")
    assert "words: ['password: ', 'secret']" in said["source_iterables"]
    assert "failed: OSError after 'half of '" in said["source_iterables"]
    assert said["source_json_lines"] == "Hello, world!\n76 bytes, 1 line skipped\n"
    assert said["source_http"] == "body: True True\nevents: Water finds its way.\n"
    assert said["quick_and_safe"] == "QUICK holds 5000 tokens\nSAFE took 100 tokens, then the producer had to wait\n"
    assert said["pacing"].startswith("fixed: 4 pieces, the longest of 126 characters\nadaptive: ")
    assert "200 tokens in" in said["adaptive_batch"]
    assert "RunawayAnswer: 'The gate is open.\\nThe turbine turns and '\nended early: True" in said["insights"]
    assert "cancelled: enough\nagent: Good evening\nreaders: 300 characters" in said["asyncio_face"]
    assert said["source_events"] == "Hello, world! {'user': 7}\n"
    assert "Paris, as everybody knows.\n {'answer':" in said["source_dspy"] or "not installed" in said["source_dspy"]
    assert said["agent_tools"].count("[calculate: ok: 224]") == 5  # once in each wire format
    assert said["agent_tools"].count("[search_files: ok: [") == 5
    assert "ended as StreamCompleted" in said["basic_collector"]
    assert "get_weather({'city':" in said["function_collector"]
    assert "finish reason: tool_calls" in said["function_collector"]
    assert "fault-503-once: complete, from fault-503-once, 2 attempt(s)" in said["robust_stream"]
    assert "fault-truncate: IncompleteStream (may work later)" in said["robust_stream"]
    assert "fault-stall: ProviderTimeout (may work later)" in said["robust_stream"]
    assert "fault-401: complete, from loopback, 2 attempt(s)" in said["robust_stream"]
    assert "map: My *** is *** dear." in said["transform"]
    assert "map: Mein *** ist *** dear." in said["transform"]
    assert "filter: My is dear." in said["transform"]
    assert "111 characters in" in said["throttle"]
    assert "'Water falls, the gat' (taken)" in said["take"]
    assert "(idle timeout after 0.3 s)" in said["take"]
    assert "answer.txt: 111 bytes" in said["stream_to_file"]
    assert "IncompleteStream: broken.txt.partial has" in said["stream_to_file"]
    assert said["pipeline"].endswith("'WHISPER THIS TO ALL'\n")
    assert "5 streams, 50000 tokens" in said["measuring"]
    assert "failed: Q2; complete: 'Water runs downhill.', 'Gates decide.'" in said["merged"]
    assert "by content: Water runs downhill.\n  2 were asked" in said["raced"]
    assert "by completion: Water runs downhill." in said["raced"]
    assert "Water runs downhill.\n2 attempts" in said["hedged"]
    assert " … void: IncompleteStream\nWATER RUNS DOWNHILL.\n2 attempts" in said["retried"]
    assert "aggregate: [Stream 3] Turbines turn." in said["run_modes"]
    assert "recovery: fault-401: AuthenticationError" in said["run_modes"]
    assert said["run_modes"].count("asyncio: ") == said["run_modes"].count("concurrent: ") == 3
    assert "cancelled: ['long-1', 'long-4']\ncompleted in time: ['short']" in said["cancel_many"]
    assert "again: Water falls" in said["batch"]
    assert "3 completed, 1 failed" in said["batch"]
    assert "0 results of 1000, stopped by AuthenticationError" in said["batch"]
    assert said["producer_consumer"].count("20 waited at most") == 3
    assert "beta: the consumer had" in said["producer_consumer"]
    assert "paused, state 'paused'" in said["text_streamer"]
    assert "complete: True; 100% of the text" in said["text_streamer"]
    assert "gemini-1: cancelled: the user pressed stop" in said["provider_streams"]
    assert "anthropic-1: Hello, anthropic." in said["provider_streams"]
    assert "art: 'Draw one.', 3 messages in its history" in said["many_agents"]
    assert "counted: 6 - the store is still the same" in said["supervised_pykka"]
    assert "restarts: {'store': 1, 'counter': 2}" in said["supervised_pykka"]


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for path in [*DOCUMENTS, ROOT / "CHANGELOG.md"]:
        for target, section in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", path.read_text("utf-8")):
            if "://" in target:
                continue
            there = path.parent / target if target else path
            assert there.exists(), f"{path.name}: {target}"
            assert not section or section in sections(there), f"{path.name}: {target}#{section}"


def sections(path: Path) -> list[str]:
    """The anchors that MkDocs and GitHub make of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower())) for heading in headings]


def test_every_page_is_in_the_navigation_and_can_be_reached_from_the_first_one() -> None:
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(pages)
    linked = re.findall(r"\]\(([\w/-]+\.md)\)", (docs / "index.md").read_text("utf-8"))
    assert sorted([*linked, "index.md"]) == sorted(pages)


def test_the_api_reference_can_be_made_without_the_optional_packages() -> None:
    """As `make docs` does; skipped where griffe, which comes with the documentation tools, is not installed."""
    griffe = pytest.importorskip("griffe")
    extensions = griffe.load_extensions(str(ROOT / "docs" / "griffe_docstrings.py"))
    package = griffe.load("penstock", search_paths=[str(ROOT)], extensions=extensions)
    system = package["system.System"]
    assert system["create_chat_token_stream"].is_function
    assert system["chat"].is_function


def test_every_public_name_is_in_the_api_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text("utf-8")
    shown = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    public = [f"penstock.{name}" for name in penstock.__all__]
    public += [f"penstock.testing.{name}" for name in penstock.testing.__all__]
    public += [f"penstock.otp.{name}" for name in penstock.otp.__all__]
    assert sorted(shown) == sorted(public)
