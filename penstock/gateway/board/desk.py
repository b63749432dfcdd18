"""The topics of one gateway, and the rules of access to them."""

from __future__ import annotations

from typing import Final

from penstock.gateway.board.closeup import StreamTopic
from penstock.gateway.board.overview import BoardTopic, ProvidersTopic
from penstock.gateway.board.processes import TreeTopic
from penstock.gateway.board.sampler import Sampler
from penstock.gateway.board.topics import Topic, Topics
from penstock.gateway.call import HttpCall
from penstock.gateway.core import GatewayCore
from penstock.gateway.guard import is_from_here
from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["BoardDesk", "desk_of", "is_topic"]

_STREAM: Final = "$stream:"
_NAMES: Final = ("$board", "$tree", "$providers")


def is_topic(name: object) -> bool:
    """Whether an id that is subscribed to is a topic's, and no stream's."""
    return isinstance(name, str) and (name in _NAMES or name.startswith(_STREAM))


class BoardDesk:
    """Hands out topics. Used on the gateway's loop."""

    def __init__(self, gateway: GatewayCore) -> None:
        self.sampler = Sampler(gateway.system)
        self._gateway = gateway
        self._topics: dict[str, Topic] = {
            "$board": BoardTopic(gateway, self.sampler),
            "$tree": TreeTopic(gateway),
            "$providers": ProvidersTopic(gateway, self.sampler),
        }

    def open(self, name: str, call: HttpCall, topics: Topics) -> None:
        """Have a connection watch a topic.

        Raises:
            RequestRefused: the key does not have the scope admin; without keys, the request does not come from this
                machine; or the connection watches too many topics.
            StreamNotFound: the topic is that of a stream, and there is none.
        """
        self._gateway.guard.check_scope(call.key, "admin")
        if not self._gateway.guard.has_keys and not is_from_here(call.exchange):
            raise RequestRefused(_ONLY_HERE)
        if topics.is_full:
            raise RequestRefused(_TOO_MANY)
        topics.open(self.topic(name))

    def topic(self, name: str) -> Topic:
        """A topic by its name.

        Raises:
            StreamNotFound: it is that of a stream, and there is none.
        """
        if not name.startswith(_STREAM):
            return self._topics[name]
        for other, topic in list(self._topics.items()):
            if not topic.viewings and other.startswith(_STREAM):
                del self._topics[other]
        record = self._gateway.system._services.streams.get(name.removeprefix(_STREAM))
        found = self._topics.get(name)
        if not isinstance(found, StreamTopic) or found.record is not record:
            found = self._topics[name] = StreamTopic(self._gateway, record)
        return found

    def close(self) -> None:
        """End all work."""
        for topic in self._topics.values():
            topic.close()
        self.sampler.close()


_ONLY_HERE: Final = Problem(
    status=403,
    type="permission_error",
    code="only_from_this_machine",
    message="Without API keys, the dashboard is for this machine only. Make a key with `penstock keys new`.",
)
_TOO_MANY: Final = Problem(
    status=429, type="rate_limit_error", code="too_many_topics", message="A connection watches at most 64 topics."
)


def desk_of(gateway: GatewayCore) -> BoardDesk:
    """The desk of a gateway, made when it is first asked for."""
    desk = gateway.board
    if desk is None:
        desk = gateway.board = BoardDesk(gateway)
    assert isinstance(desk, BoardDesk)
    return desk
