"""DSPy programs as sources. Needs the extra ``dspy``, which is imported when a source is made."""

from __future__ import annotations

import asyncio
import copy
import importlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from penstock.config.checks import check_choice, type_of
from penstock.errors import OptionError
from penstock.events import Progress, StreamCompleted, TokenEvent, Usage
from penstock.ports import Item, Void

__all__ = ["DspySource", "dspy"]

JsonText: TypeAlias = Literal["hold", "stream"]
_DIFFERS: Final = "the streamed text was not the prediction"


class _Field(NamedTuple):
    """An output field of one of the program's predictors."""

    predictor: str
    predict: Any
    name: str
    is_text: bool


def dspy(
    program: Any, *, fields: Sequence[str] | None = None, json_text: JsonText | None = None, **inputs: Any
) -> DspySource:
    """A DSPy program (3.4 or later) as a source: its answer, as the language model writes it.

    The program runs in a task of its own on the system's event loop, in a copy of the caller's context, so
    ``dspy.context`` applies. When the stream ends, the task is cancelled. A synchronous program (without ``aforward``)
    runs on one of DSPy's threads, which cannot be stopped: it goes on until it returns, and one that catches exceptions
    may call the model again. DSPy runs 8 of them at a time (``async_max_workers``).

    The prediction is what counts. Where the streamed text is not that of the prediction, readers get the rest of it if
    it is a start, else a `StreamReset` and the prediction. A cached answer comes as a whole.

    Args:
        program: a ``dspy.Module``.
        fields: the output fields to stream; each is an `TokenEvent.origin`. None takes the last text field of the last
            predictor that has one, without an origin.
        json_text: what to do with the JSON that the JSON adapter has the model write: ``"hold"`` streams nothing before
            the end, ``"stream"`` what DSPy makes of it, which may hold quotes and escapes, and be reset at the end.
            None: ``"hold"``.
        **inputs: the program's inputs.

    Status messages of DSPy come as `Progress`. The terminal event has the ``prediction`` as a dict, and the usage of
    all calls. What the program raises is the ``__cause__`` of the stream's `SourceError`.

    Raises:
        OptionError: DSPy is not installed, or an argument is not allowed.
    """
    found = _dspy()
    if not isinstance(program, found.Module):
        raise OptionError("program", type_of(program), "a dspy.Module")
    check_choice("json_text", json_text, (None, "hold", "stream"))
    program = copy.copy(program)  # first: DSPy knows what it streams by the identity of its predictors
    known = list(_fields_of(program))
    if fields is None:
        texts = [field for field in known if field.is_text]
        chosen = [field for field in texts if field.predictor == texts[-1].predictor][-1:] if texts else known[-1:]
    else:
        chosen = _chosen(fields, known)
    return DspySource(program, chosen, inputs, has_origins=fields is not None, holds_json=json_text != "stream")


def _dspy() -> Any:
    try:
        return importlib.import_module("dspy")
    except ImportError as error:
        problem = "DSPy is not installed; install penstock[dspy]"
        raise OptionError("program", None, "a dspy.Module", problem=problem) from error


def _fields_of(program: Any) -> Iterator[_Field]:
    for name, predict in program.named_predictors():
        for field, info in predict.signature.output_fields.items():
            yield _Field(name, predict, field, info.annotation is str)


def _chosen(fields: Sequence[str], known: Sequence[_Field]) -> list[_Field]:
    """The last predictor's field of each name."""
    by_name = {field.name: field for field in known}
    if isinstance(fields, str) or not fields or not set(fields) <= set(by_name):
        raise OptionError("fields", fields, f"a list of {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(fields)]


class DspySource:
    """Made by `dspy`. Implements `penstock.ports.Source`."""

    kind = "dspy"
    blocks = False
    on_own_loop = True

    def __init__(
        self, program: Any, fields: list[_Field], inputs: Mapping[str, Any], *, has_origins: bool, holds_json: bool
    ) -> None:
        self._program = program
        self._fields = fields
        self._inputs = dict(inputs)
        self._has_origins = has_origins
        self._holds_json = holds_json
        self._heard: dict[str, str] = {}  # what has been streamed, by field

    def open(self) -> AsyncIterator[Item]:
        """See `Source.open`."""
        return self._items()

    async def _items(self) -> AsyncIterator[Item]:
        found = _dspy()
        with found.context(track_usage=True):
            values = self._values(found)
            prediction = None
            try:
                async for value in values:
                    if isinstance(value, found.Prediction):
                        prediction = value
                    elif (item := self._item_of(found, value)) is not None:
                        yield item
            except GeneratorExit:
                await _cancelled(values)
                raise
            for item in self._rest(prediction):
                yield item
            yield _end(prediction)

    def _values(self, found: Any) -> AsyncIterator[Any]:
        streaming = importlib.import_module("dspy.streaming")
        is_held = self._holds_json and isinstance(found.settings.adapter, found.JSONAdapter)
        listeners = [
            streaming.StreamListener(field.name, predict=field.predict, predict_name=field.predictor, allow_reuse=True)
            for field in self._fields
            if field.is_text and not is_held
        ]
        call = found.streamify(
            self._program, stream_listeners=listeners, is_async_program=hasattr(self._program, "aforward")
        )
        values: AsyncIterator[Any] = call(**self._inputs)
        return values

    def _item_of(self, found: Any, value: Any) -> Item | None:
        name = getattr(value, "signature_field_name", None)
        chunk = getattr(value, "chunk", None)
        if name is not None:
            if not isinstance(chunk, str) or not chunk:
                return None
            self._heard[name] = self._heard.get(name, "") + chunk
            return self._text(name, chunk)
        message = getattr(value, "message", None)
        return Progress(message=message) if isinstance(message, str) else None

    def _text(self, field: str, text: str) -> Item:
        return TokenEvent("", 0, (text,), text, "text", 0.0, {}, origin=field if self._has_origins else None)

    def _rest(self, prediction: Any) -> Iterator[Item]:
        """What is missing of the prediction, after a reset if something else has been streamed."""
        for field in self._fields:
            value = getattr(prediction, field.name, None)
            if value is None:
                continue
            text, heard = str(value), self._heard.get(field.name, "")
            if not text.startswith(heard):
                yield Void(_DIFFERS, field.name if self._has_origins else None)
                heard = ""
            if text != heard:
                yield self._text(field.name, text[len(heard) :])

    def cancel(self) -> None:
        """See `Source.cancel`: the reader cancels the task."""

    def counters(self) -> Mapping[str, Any]:
        """See `Source.counters`."""
        return {}


async def _cancelled(values: AsyncIterator[Any]) -> None:
    """End DSPy's generator by a cancellation inside of it: closing it would leave its inner one to the collector."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        async for _ in values:
            pass
    except asyncio.CancelledError:
        pass
    finally:
        task.uncancel()


def _end(prediction: Any) -> StreamCompleted:
    if prediction is None:
        return StreamCompleted(stream_id="", seq=0, text="")
    told: Mapping[str, Mapping[str, Any]] = prediction.get_lm_usage() or {}
    usage = None
    if told:
        read, written = (
            sum(int(one.get(name) or 0) for one in told.values()) for name in ("prompt_tokens", "completion_tokens")
        )
        usage = Usage(input_tokens=read, output_tokens=written, total_tokens=read + written)
    return StreamCompleted(
        stream_id="",
        seq=0,
        text="",
        usage=usage,
        model=next(iter(told)) if len(told) == 1 else None,
        prediction=prediction.toDict(),
    )
