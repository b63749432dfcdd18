"""The modules in which changes are tried, and for each the tests that are to notice them."""

from __future__ import annotations

from typing import Final

__all__ = ["MODULES"]

_FLOW: Final = "tests/unit/flow/"
_RUNTIME: Final = "tests/unit/runtime/"
_HOUSE: Final = "tests/conformance/"
_CALLS: Final = (f"{_HOUSE}test_integration.py", f"{_HOUSE}test_asking.py")
_HTTP: Final = "tests/unit/adapters/"
_PROVIDERS: Final = "tests/unit/adapters/providers/"
_SUPERVISION: Final = (
    "tests/unit/supervisors/test_dynamic.py",
    "tests/unit/supervisors/test_restart.py",
    "tests/unit/supervisors/test_start_here.py",
    "tests/unit/supervisors/test_waiting.py",
    f"{_HOUSE}test_supervisor.py",
)

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "actors/call/answer.py": (
        f"{_FLOW}test_outcome.py",
        f"{_FLOW}test_tally.py",
        f"{_HOUSE}test_answer_events.py",
        f"{_HOUSE}test_integration.py",
    ),
    "actors/call/attempt.py": (
        "tests/unit/test_attempt.py",
        "tests/unit/test_direct_turn.py",
        "tests/unit/test_source.py",
        f"{_HOUSE}test_answer_beginnings.py",
        f"{_HOUSE}test_answer_events.py",
        f"{_HOUSE}test_answer_places.py",
        *_CALLS,
        f"{_HOUSE}test_rounds.py",
    ),
    "actors/call/breaker.py": (f"{_FLOW}test_breaker.py", "tests/unit/test_gates.py"),
    "actors/call/budget.py": (f"{_FLOW}test_budget.py",),
    "actors/call/gate.py": ("tests/unit/test_gates.py", "tests/unit/test_shared_limits.py", f"{_FLOW}test_limits.py"),
    "actors/call/held.py": (f"{_FLOW}test_held.py",),
    "actors/call/integration.py": (
        "tests/unit/test_integration_states.py",
        "tests/unit/test_integration_retries.py",
        "tests/unit/test_source.py",
        "tests/unit/test_scripted_reader.py",
        *_CALLS,
    ),
    "actors/call/record.py": (
        "tests/unit/test_call_record.py",
        "tests/unit/test_source.py",
        "tests/unit/test_usage_and_cost.py",
        f"{_HOUSE}test_answer_events.py",
        *_CALLS,
        f"{_HOUSE}test_rounds.py",
    ),
    "actors/call/tally.py": (f"{_FLOW}test_tally.py",),
    "actors/call/toolcalls.py": (
        f"{_FLOW}test_toolcalls.py",
        f"{_FLOW}test_outcome.py",
        f"{_HOUSE}test_tool_events.py",
    ),
    "actors/runtime/dispatcher.py": (f"{_RUNTIME}test_dispatcher.py",),
    "actors/runtime/process.py": (
        f"{_RUNTIME}test_process.py",
        f"{_RUNTIME}test_inspect.py",
        f"{_HOUSE}test_links.py",
    ),
    "actors/runtime/statem.py": (
        f"{_RUNTIME}test_statem.py",
        f"{_HOUSE}test_statem.py",
        f"{_RUNTIME}test_inspect.py",
    ),
    "actors/stream/bucket.py": (f"{_FLOW}test_bucket.py",),
    "actors/stream/buffer.py": (
        f"{_FLOW}test_buffer.py",
        f"{_FLOW}test_pacing.py",
        "tests/unit/test_intake.py",
        f"{_HOUSE}test_undelivered.py",
    ),
    "actors/stream/cursor.py": (
        f"{_FLOW}test_cursor.py",
        f"{_FLOW}test_fanout.py",
        f"{_FLOW}test_log_origins.py",
        f"{_HOUSE}test_tool_events_readers.py",
    ),
    "actors/stream/delivery.py": (f"{_FLOW}test_delivery.py", f"{_HOUSE}test_stream.py"),
    "actors/stream/folded.py": (
        f"{_FLOW}test_folded.py",
        f"{_FLOW}test_log.py",
        f"{_FLOW}test_log_origins.py",
        f"{_FLOW}test_fanout.py",
        f"{_HOUSE}test_answer_events.py",
    ),
    "actors/stream/log.py": (
        f"{_FLOW}test_log_end.py",
        f"{_FLOW}test_log_held.py",
        f"{_FLOW}test_log_origins.py",
        f"{_FLOW}test_log.py",
        f"{_FLOW}test_fanout.py",
        f"{_HOUSE}test_answer_events_kept.py",
    ),
    "actors/stream/statistics.py": (
        f"{_FLOW}test_statistics.py",
        f"{_HOUSE}test_metrics.py",
        "tests/unit/toolbox/test_producer_consumer.py",
    ),
    "actors/stream/subscribers/pull.py": ("tests/unit/test_subscriptions.py", f"{_HOUSE}test_iterators.py"),
    "actors/stream/weights.py": (f"{_FLOW}test_weights.py",),
    "adapters/http/answer.py": (f"{_HTTP}test_http_answer.py",),
    "adapters/http/connection.py": (f"{_HTTP}test_http_connection.py", "tests/integration/test_http_reader.py"),
    "adapters/http/exchange.py": (f"{_HTTP}test_http_exchange.py", "tests/integration/test_http_reader.py"),
    "adapters/providers/gemini/decoder.py": (
        f"{_PROVIDERS}test_gemini.py",
        f"{_PROVIDERS}test_gemini_extras.py",
        f"{_PROVIDERS}test_gemini_sources.py",
        f"{_PROVIDERS}test_gemini_tools.py",
        f"{_PROVIDERS}test_raw.py",
        "tests/contract/test_corpus_gemini.py",
    ),
    "adapters/providers/openai/chat_decoder.py": (
        f"{_PROVIDERS}test_openai_chat.py",
        f"{_PROVIDERS}test_openai_chat_blocks.py",
        f"{_PROVIDERS}test_openai_chat_extras.py",
        f"{_PROVIDERS}test_aborts.py",
        f"{_PROVIDERS}test_raw.py",
        "tests/contract/test_corpus_openai.py",
        "tests/contract/test_hostile_streams.py",
    ),
    "supervisors/children.py": _SUPERVISION,
    "supervisors/dynamic.py": _SUPERVISION,
    "supervisors/system/handler.py": (
        "tests/unit/supervisors/test_handler.py",
        f"{_HOUSE}test_handler.py",
        f"{_HOUSE}test_ends.py",
        f"{_HOUSE}test_rounds.py",
        f"{_HOUSE}test_failure_table.py::test_when_the_handler_is_killed_no_stream_stops_and_no_subscriber_notices",
        f"{_HOUSE}test_failure_table.py::test_a_handler_killed_while_a_stream_is_being_opened_opens_it_once",
        f"{_HOUSE}test_failure_table.py::test_a_new_handler_knows_the_subscribers_of_the_old_one",
    ),
    "supervisors/system/watching.py": (
        "tests/unit/supervisors/test_watching.py",
        f"{_HOUSE}test_handler.py",
        "tests/unit/test_subscriptions.py",
        f"{_HOUSE}test_user_processes.py",
    ),
}
