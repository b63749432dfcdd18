"""DSPy programs as sources, with the loopback provider as their language model."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import penstock
from penstock import sources
from penstock.adapters.loopback.faults import DelayFirstByte, Status
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import Collector, eventually

if importlib.util.find_spec("dspy") is None:
    pytest.skip("needs dspy", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")  # of litellm and what it imports
dspy: Any = None  # set by the fixture
QUESTION: Any = "question -> answer"
PARIS = "Paris is the capital of France, as everybody knows."


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load DSPy when its tests run, and not in each process that collects them.

    It looks at the stack while it is loaded, for a second or more per hundred frames: hence in a thread.
    """
    global dspy
    with ThreadPoolExecutor(1) as thread:
        dspy = thread.submit(importlib.import_module, "dspy").result()


@contextmanager
def model(*answers: Any, cache: bool = False) -> Iterator[tuple[penstock.System, LoopbackProvider]]:
    """A system, with the loopback provider as DSPy's language model."""
    with LoopbackProvider(Script(list(answers))) as server, penstock.System() as system:
        lm = dspy.LM("openai/test", api_base=server.base_url, api_key="k", cache=cache, num_retries=0)
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            yield system, server


def chat(**fields: str) -> str:
    return "".join(f"[[ ## {name} ## ]]\n{text}\n\n" for name, text in fields.items()) + "[[ ## completed ## ]]"


def open_one(system: penstock.System, program: Any = None, **more: Any) -> tuple[penstock.Stream, Collector]:
    program = dspy.Predict(QUESTION) if program is None else program
    stream = system.stream_from(sources.dspy(program, **{"question": "Capital?", **more}))
    return stream, Collector(stream)


def resets(collector: Collector) -> int:
    return sum(isinstance(event, penstock.StreamReset) for event in collector.events)


def test_an_answer_is_streamed_and_the_end_has_prediction_and_usage() -> None:
    with model(Answer(chat(answer=PARIS))) as (system, _):
        stream, collector = open_one(system)
        end = collector.wait_for_terminal(60)
        assert isinstance(end, penstock.StreamCompleted), end
        assert (end.text, end.prediction) == (PARIS, {"answer": PARIS})
        assert end.usage is not None
        assert (end.usage.output_tokens or 0) > 0
        assert sum(len(event.tokens) for event in collector.events if isinstance(event, penstock.TokenEvent)) > 1
        assert resets(collector) == 0
        assert system.get_stream_info(stream.stream_id).kind == "dspy"


def test_fields_have_origins() -> None:
    with model(Answer(chat(reasoning="Because it is so, and was.", answer=PARIS))) as (system, _):
        _, collector = open_one(system, dspy.ChainOfThought(QUESTION), fields=["reasoning", "answer"])
        end = collector.wait_for_terminal(60)
        assert dict(end.texts) == {"reasoning": "Because it is so, and was.", "answer": PARIS}
        origins = {event.origin for event in collector.events if isinstance(event, penstock.TokenEvent)}
        assert origins == {"reasoning", "answer"}


def test_text_that_dspy_drops_is_made_good_by_a_reset() -> None:
    text = "A list [[1, 2], [3, 4]] is nested, and this text is long enough for several chunks."
    with model(Answer(chat(answer=text))) as (system, _):
        _, collector = open_one(system)
        end = collector.wait_for_terminal(60)
        assert (end.text, end.prediction) == (text, {"answer": text})


@pytest.mark.parametrize("json_text", ["hold", "stream", None])
def test_the_json_adapter_ends_with_the_prediction_too(json_text: Any) -> None:
    text = 'He said "no"\nand left, which was not expected by those who stayed.'
    with model(Answer('{"answer": "He said \\"no\\"\\nand left, which was not expected by those who stayed."}')) as (
        system,
        _,
    ):
        with dspy.context(adapter=dspy.JSONAdapter()):
            _, collector = open_one(system, json_text=json_text)
        end = collector.wait_for_terminal(60)
        assert end.text == text
        if json_text != "stream":
            assert resets(collector) == 0


def test_a_cached_answer_comes_as_a_whole() -> None:
    with model(Answer(chat(answer=PARIS)), cache=True) as (system, server):
        texts, question = [], f"Cached {uuid.uuid4()}?"  # DSPy's cache is on the disk
        for _ in range(2):
            _, collector = open_one(system, question=question)
            texts.append(collector.wait_for_terminal(60).text)
        assert texts == [PARIS, PARIS]
        assert len(server.requests) == 1


def test_several_programs_run_at_the_same_time() -> None:
    with model(Answer(chat(answer=PARIS))) as (system, _):
        found = [open_one(system, question=str(number)) for number in range(6)]
        assert {collector.wait_for_terminal(60).text for _, collector in found} == {PARIS}


def test_a_program_that_fails_is_the_cause_and_its_message_is_not_copied() -> None:
    class Failing(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            raise ValueError(f"secret {question}")

    with model(Answer("x")) as (system, _):
        _, collector = open_one(system, Failing())
        end = collector.wait_for_terminal(60)
        assert isinstance(end, penstock.StreamFailed)
        assert isinstance(end.error, penstock.SourceError)
        assert isinstance(end.error.__cause__, ValueError)
        assert "secret" not in str(end.error)
    with model(Status(400)) as (system, _):
        end = open_one(system)[1].wait_for_terminal(60)
        assert isinstance(end, penstock.StreamFailed)


def test_a_cancelled_stream_cancels_the_task_of_the_program() -> None:
    with model(DelayFirstByte(None)) as (system, server):
        stream, collector = open_one(system)
        server.wait_for_requests(1, 30)
        stream.cancel("enough")
        assert isinstance(collector.wait_for_terminal(10), penstock.StreamCancelled)
        eventually(lambda: server.statistics().active_connections == 0, 10)
    with model(Answer(chat(answer=PARIS * 100), pace=0.001)) as (system, server):
        stream, collector = open_one(system)
        eventually(lambda: stream.text, 30)
        stream.cancel("enough")
        assert isinstance(collector.wait_for_terminal(10), penstock.StreamCancelled)
        assert system.statistics().leaked_sources == 0


def test_an_agent_with_tools_streams_its_last_answer() -> None:
    def lookup(city: str) -> str:
        return f"{city}: 2 million"

    def step(name: str, args: str) -> str:
        return chat(next_thought="Look.", next_tool_name=name, next_tool_args=args)

    answers = [
        Answer(step("lookup", '{"city": "Paris"}')),
        Answer(step("finish", "{}")),
        Answer(chat(reasoning="As found.", answer=PARIS)),
    ]
    with model(*answers) as (system, _):
        _, collector = open_one(system, dspy.ReAct(QUESTION, tools=[lookup]))
        assert collector.wait_for_terminal(60).text == PARIS
        assert any(isinstance(event, penstock.Progress) for event in collector.events)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sources.dspy(3),
        lambda: sources.dspy(dspy.Predict(QUESTION), fields=["other"]),
        lambda: sources.dspy(dspy.Predict(QUESTION), fields="answer"),
        lambda: sources.dspy(dspy.Predict(QUESTION), json_text="other"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_are_not_allowed_are_refused(make: Any) -> None:
    with pytest.raises(penstock.OptionError):
        make()
