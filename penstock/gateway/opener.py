"""Opens streams for requests: a call of a model, a turn of an agent, or an empty one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock.adapters.providers.chat_calls import check_input
from penstock.config.logs import get_logger
from penstock.config.options import OnOrphan
from penstock.config.providers import Dialect, find_known_provider
from penstock.errors import OptionError
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel, facts_of
from penstock.gateway.core import GatewayCore
from penstock.gateway.problems import RequestRefused, problem_of, shown_name
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.native import SERVERS_OWN, check_changes, parse
from penstock.gateway.turns import open_turn
from penstock.ports import ChatCall
from penstock.stream import Stream
from penstock.system import System

__all__ = [
    "created",
    "dialect_of",
    "open_asked",
    "open_empty",
    "open_native",
    "orphan_policy",
    "path_of",
    "provider_in",
]

_PATH: Final = "[]._-"
"""What paths of fields consist of besides letters and digits; all else is the client's, and percent-encoded."""
_MOST_IGNORED: Final = 20
_LONGEST_IGNORED: Final = 100


async def open_asked(
    call: HttpCall, asked: Asked, request: Mapping[str, Any], facts: Mapping[str, Any] | None = None
) -> Channel:
    """Open the stream that a request asks for, and enter it. ``facts``: more that a stored log says of it.

    Raises:
        PenstockError: it cannot be opened.
    """
    gateway = call.gateway
    await gateway.read(asked.stream_id)
    gateway.admit_stream(call.key, asked.stream_id)
    _tell_ignored(call, asked.dropped)
    on_orphan = orphan_policy(call, asked.on_orphan)
    if asked.model in gateway.templates:
        return await open_turn(call, asked, request, on_orphan)
    key, trace = call.key, call.trace.headers
    all_facts = facts_of(key.id, call.protocol.name, request, asked.model) | dict(facts or {})
    return await gateway.enter(
        key,
        lambda: _open(gateway.system, asked, on_orphan, trace, all_facts),
        lambda stream: Channel(
            stream, owner=key.id, protocol=call.protocol.name, request=request, model=asked.model, asked=asked
        ),
    )


def _tell_ignored(call: HttpCall, fields: Sequence[str]) -> None:
    """Say in the response's headers which fields of a request cannot be sent to its provider."""
    if not fields:
        return
    told = [quote(path, safe=_PATH) for path in fields[:_MOST_IGNORED]]
    more = ["..."] if len(fields) > len(told) or any(len(path) > _LONGEST_IGNORED for path in told) else []
    named = [path for path in told if len(path) <= _LONGEST_IGNORED]
    call.exchange.extra_headers.append(("x-penstock-ignored", ", ".join([*named, *more])))
    get_logger().info("fields_ignored", protocol=call.protocol.name, fields=len(fields))


async def open_native(call: HttpCall, body: Mapping[str, Any], stream_id: str | None = None) -> Channel:
    """Open the stream that a request of the native protocol asks for. ``stream_id``: its id if the body has none.

    Raises:
        PenstockError: the request is malformed, or the stream cannot be opened.
    """
    asked = parse(body, call.gateway.system.settings.model())
    if asked.stream_id is None:
        asked = msgspec.structs.replace(asked, stream_id=stream_id)
    channel = await (open_asked(call, asked, body) if asked.model else open_empty(call, asked, body))
    channel.linger_unread()
    return channel


def path_of(call: HttpCall, stream_id: str) -> str:
    """The path of a stream's resource."""
    return f"{call.exchange.scope.get('root_path', '')}/v1/streams/{quote(stream_id, safe='')}"


def created(call: HttpCall, channel: Channel) -> dict[str, Any]:
    """What a request that has opened a stream gets."""
    path = path_of(call, channel.stream_id)
    names = ("events", "pause", "resume", "cancel", "flush", "tokens", "options", "tickets")
    links = {"self": path, **{name: f"{path}/{name}" for name in names}}
    return {"stream_id": channel.stream_id, "epoch": channel.epoch, "state": channel.stream.state, "links": links}


async def open_empty(
    call: HttpCall, asked: Asked, request: Mapping[str, Any], facts: Mapping[str, Any] | None = None
) -> Channel:
    """Open a stream for tokens that the client pushes, and enter it. ``facts`` as for `open_asked`.

    Raises:
        PenstockError: it cannot be opened.
    """
    gateway = call.gateway
    await gateway.read(asked.stream_id)
    gateway.admit_stream(call.key, asked.stream_id)
    system, on_orphan = gateway.system, orphan_policy(call, asked.on_orphan)
    all_facts = facts_of(call.key.id, call.protocol.name, request, "") | dict(facts or {})

    def run() -> Stream:
        options = _changed(system.settings.stream, asked.options, "options")
        metadata = {**asked.metadata, "traceparent": call.trace.headers["traceparent"]}
        services = system._services
        record = services.open_stream(asked.stream_id, options, metadata=metadata, on_orphan=on_orphan, facts=all_facts)
        return Stream(record, services.call_timeout)

    key = call.key
    return await gateway.enter(
        key, run, lambda stream: Channel(stream, owner=key.id, protocol=call.protocol.name, request=request)
    )


def provider_in(body: Mapping[str, Any]) -> str | None:
    """The provider that a body names in its object ``penstock``, if it is a text."""
    own = body.get("penstock")
    name = own.get("provider") if isinstance(own, Mapping) else None
    return name if isinstance(name, str) and name else None


def dialect_of(gateway: GatewayCore, provider: object, model: object) -> Dialect:
    """The dialect of the provider that will be asked.

    Raises:
        OptionError: there is no such provider.
    """
    name = provider if isinstance(provider, str) and provider else None
    found = gateway.system._catalogue.find(name, model if isinstance(model, str) and model else "-")
    known = find_known_provider(found.provider.name)
    return known.dialect if known is not None else "openai-chat"


def orphan_policy(call: HttpCall, asked: OnOrphan | None) -> OnOrphan:
    """What happens when the last reader leaves: as the request says, else the options, else the protocol."""
    options = call.gateway.options
    if asked is not None:
        return asked
    if options.on_orphan is not None:
        return options.on_orphan
    return "cancel" if call.protocol.orphan == "cancel" else options.linger


def _open(
    system: System, asked: Asked, on_orphan: OnOrphan, trace: Mapping[str, str], facts: Mapping[str, Any]
) -> Stream:
    """Open the stream of a call, with the parameters as one mapping: no name of a client's means an argument.

    The parsers have put the names of call options into ``extra_body``; see `own_fields.model_parameters`.
    """
    services, settings = system._services, system.settings
    is_response = asked.api == "responses"
    parameters = {**asked.parameters, "extra_headers": dict(trace)}
    found = services.catalogue.find(asked.provider, asked.model, responses=is_response)
    given = asked.input if is_response else check_input(asked.input)
    record = services.ask(
        found,
        ChatCall(model=found.model, input=given, parameters=parameters),
        _changed(settings.response if is_response else settings.chat, asked.options, "options"),
        _changed(settings.request, asked.request_options, "request_options"),
        stream_id=asked.stream_id,
        metadata={**asked.metadata, "traceparent": trace["traceparent"]},
        on_orphan=on_orphan,
        responses=is_response,
        facts=facts,
    )
    return Stream(record, services.call_timeout)


def _changed(options: Any, changes: Mapping[str, Any], field: str) -> Any:
    """The options with changes from a request's body.

    Raises:
        RequestRefused: a name or value is not allowed.
    """
    check_changes(changes, field)
    names = [each.name for each in dataclasses.fields(options)]
    for name in changes:
        if name not in names:
            path = f"{field}.{shown_name(name)}"
            known = ", ".join(each for each in names if each not in SERVERS_OWN)
            raise RequestRefused.bad_request(f"{path}: no such option, allowed: {known}.", path)
    try:
        return options.replace(**changes)
    except OptionError as error:
        raise RequestRefused.bad_request(
            f"{field}.{problem_of(error).message}", f"{field}.{shown_name(error.field)}"
        ) from None
