"""What a recording of chat completions has besides text and calls; also Ollama's own API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.corpus.bodies import Json
from tests.corpus.found import Found, told

__all__ = ["chat_counts", "derive", "derive_ollama"]

_TIMES = ("queue_time", "prompt_time", "completion_time", "total_time")
_OLLAMA_TIMES = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
_TICKS_A_DOLLAR = 10**10


def derive(events: Iterable[Json]) -> Found:
    """Read the chunks in order; of the choices only the first."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    return reader.close()


class _Reader:
    def __init__(self) -> None:
        self.found = Found()
        self._entry: Json = {}  # of the reasoning details, open
        self._sources: set[str] = set()
        self._pictures: set[str] = set()
        self._sound: list[str] = []
        self._sound_id: str | None = None

    def read(self, chunk: Json) -> None:
        found = self.found
        found.response_id(chunk.get("id"))
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                self._read_choice(choice)
        self._read_sources(chunk)
        for picture in chunk.get("images") or ():
            if picture["image_url"] not in self._pictures:
                self._pictures.add(picture["image_url"])
                found.medium("image", url=picture["image_url"])
        usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or {}
        found.says(
            system_fingerprint=chunk.get("system_fingerprint"),
            service_tier=chunk.get("service_tier"),
            moderation=told({"prompt_filter_results": chunk.get("prompt_filter_results")}),
            timings=_timings(chunk, usage),
            cost=usage.get("cost"),
        )
        if usage:
            chat_counts(found, usage, "prompt", "completion")

    def close(self) -> Found:
        self._close_entry()
        if self._sound:
            self.found.medium("audio", id=self._sound_id, transcript="".join(self._sound))
        return self.found

    # --- the choice ------------------------------------------------------------------------------------------------

    def _read_choice(self, choice: Json) -> None:
        found, delta = self.found, choice.get("delta") or {}
        details = delta.get("reasoning_details") or ()
        for detail in details:
            self._read_detail(detail)
        content = delta.get("content")
        reasoning = delta.get("reasoning") or delta.get("reasoning_content")
        found.say("reasoning", reasoning or "".join(part.get("text") or part.get("summary") or "" for part in details))
        if content or delta.get("refusal") or delta.get("tool_calls"):
            self._close_entry()
        self._read_content(content)
        found.say("refusal", delta.get("refusal") or "")
        logprobs = choice.get("logprobs")
        logprobs = logprobs if isinstance(logprobs, dict) else {}  # Together sends a bare number
        for item in [*(logprobs.get("content") or ()), *(logprobs.get("refusal") or ())]:
            found.token(item)
        if audio := delta.get("audio"):
            self._sound_id = audio.get("id") or self._sound_id
            if words := audio.get("transcript"):
                self._sound.append(words)
                found.medium("audio", is_partial=True, id=self._sound_id, transcript=words)
        found.calls += sum(bool((call.get("function") or {}).get("name")) for call in delta.get("tool_calls") or ())
        if choice.get("finish_reason"):
            self._close_entry()
            found.says(stop_sequence=choice.get("stop_reason"))

    def _read_content(self, content: str | list[Any] | None) -> None:
        if isinstance(content, str):
            self.found.say("text", content)
        for part in content if isinstance(content, list) else ():
            self.found.say("text", part.get("text") or "")
            for thought in part.get("thinking") or ():
                self.found.say("reasoning", thought.get("text") or "")

    def _read_detail(self, detail: Json) -> None:
        """Fragments with the same type and index are one entry."""
        if self._entry and any(self._entry.get(name) != detail.get(name) for name in ("type", "index")):
            self._close_entry()
        seal = (self._entry.get("seal") or "") + (detail.get("signature") or detail.get("data") or "")
        self._entry |= {"type": detail["type"], "index": detail.get("index"), "seal": seal}
        self._entry["id"] = detail.get("id") or self._entry.get("id")

    def _close_entry(self) -> None:
        if not self._entry:
            return
        if self._entry["seal"]:
            self.found.reasoning(self._entry["type"], self._entry["seal"])
        self.found.block(self._entry["type"], self._entry["id"])
        self._entry = {}

    # --- the chunk -------------------------------------------------------------------------------------------------

    def _read_sources(self, chunk: Json) -> None:
        """Perplexity repeats its sources in each chunk; each counts once."""
        for result in chunk.get("search_results") or ():
            if result["url"] not in self._sources:
                self._sources.add(result["url"])
                self.found.cite(
                    None,
                    kind="search_result",
                    url=result["url"],
                    title=result.get("title"),
                    cited_text=result.get("snippet"),
                )
        for url in chunk.get("citations") or ():
            if url not in self._sources:
                self._sources.add(url)
                self.found.cite(None, kind="url", url=url)


def _timings(chunk: Json, usage: Json) -> Json:
    """The provider's durations and rates; no time of day."""
    times = chunk.get("timings") or chunk.get("time_info") or {name: usage[name] for name in _TIMES if name in usage}
    return {name: value for name, value in times.items() if name != "created"}


def chat_counts(found: Found, usage: Json, asked: str, answered: str) -> None:
    """The counts of a usage in OpenAI's form that are not among the usual ones, in place of earlier ones."""
    before = usage.get(f"{asked}_tokens_details") or {}
    after = usage.get(f"{answered}_tokens_details") or {}
    requests = {
        name.removesuffix("_calls"): count
        for name, count in (usage.get("server_side_tool_usage_details") or {}).items()
    }
    if "num_sources_used" in usage:
        requests["sources"] = usage["num_sources_used"]
    found.usage = {}
    found.counts(
        cached_tokens=_first(usage, "cached_tokens", "cache_read_input_tokens"),
        reasoning_tokens=usage.get("reasoning_tokens"),
        cache_write_tokens=_first(usage | before, "cache_write_tokens", "cache_creation_input_tokens"),
        audio_input_tokens=before.get("audio_tokens"),
        image_input_tokens=before.get("image_tokens"),
        audio_output_tokens=after.get("audio_tokens"),
        image_output_tokens=after.get("image_tokens"),
        server_tool_requests=requests,
        service_tier=usage.get("service_tier"),
        reported_cost=_cost(usage),
    )


def _first(counts: Json, *names: str) -> int | None:
    return next((counts[name] for name in names if counts.get(name) is not None), None)


def _cost(usage: Json) -> float | None:
    if "cost_in_usd_ticks" in usage:
        ticks: int = usage["cost_in_usd_ticks"]
        return ticks / _TICKS_A_DOLLAR
    cost = usage.get("cost")
    total = cost.get("total_cost") if isinstance(cost, dict) else cost
    assert not usage.get("is_byok"), "with an own key, the upstream provider's cost is to be added"
    return None if total is None else float(total)


def derive_ollama(lines: Iterable[Json]) -> Found:
    """Read the lines of Ollama's own API."""
    found = Found()
    for line in lines:
        message = line.get("message") or {}
        found.say("reasoning", message.get("thinking") or "")
        found.say("text", message.get("content") or "")
        for item in line.get("logprobs") or ():
            found.token(item)
        found.calls += len(message.get("tool_calls") or ())
        if line.get("done") and found.calls and found.texts["reasoning"]:
            found.block("message.thinking")
        found.says(timings={name: line[name] for name in _OLLAMA_TIMES if name in line})
    return found
