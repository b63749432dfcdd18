"""What the services look up for each call, and what they remember."""

from __future__ import annotations

import pytest

from penstock.config.limits import LimitOptions
from penstock.config.options import StreamOptions
from penstock.config.prices import Price, PriceTable
from penstock.config.settings import Settings
from penstock.testing import ScriptedProvider, SimulatedSystem


def test_the_price_of_a_model_and_the_limits_of_a_provider_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    find, limits = PriceTable.find, Settings.limits

    def find_price(self: PriceTable, provider: str, model: str) -> Price | None:
        asked.append(model)
        return find(self, provider, model)

    def find_limits(self: Settings, provider: str | None = None) -> LimitOptions:
        asked.append("limits")
        return limits(self, provider)

    monkeypatch.setattr(PriceTable, "find", find_price)
    monkeypatch.setattr(Settings, "limits", find_limits)
    with SimulatedSystem() as system:
        for model in ("one", "other", "one"):
            system.chat(model, [{"role": "user", "content": "Hello"}], provider=ScriptedProvider(["a"])).result()
    assert asked == ["limits", "one", "other"]


def test_options_to_which_nothing_is_changed_are_the_streams_options() -> None:
    options = StreamOptions(batch_size=5)
    messages = [{"role": "user", "content": "Hello"}]
    with SimulatedSystem() as system:
        for size in (None, 7):
            stream = system.chat(
                "m", messages, provider=ScriptedProvider(["a"]), options=options, token_batch_size=size
            )
            found = system.get_stream_info(stream.stream_id).options
            assert (found is options) is (size is None)
            assert found.batch_size == (size or 5)
