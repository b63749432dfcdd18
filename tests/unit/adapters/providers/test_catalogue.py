"""Which provider a name stands for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from penstock.adapters.providers.catalogue import Catalogue
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import OptionError
from penstock.ports import ChatCall

DOCUMENT = Path(__file__).parents[4] / "docs" / "configuration.md"


def test_the_documents_example_of_a_server_of_ones_own_works() -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    told = tomllib.loads(example[1])["providers"]["ollama"]
    catalogue = Catalogue(Settings(providers={"ollama": ProviderOptions(**told)}), {})
    request = catalogue.find("ollama", None, None).request(ChatCall(model="m", input=[]))
    assert request.url == "http://localhost:11434/v1/chat/completions"
    request = catalogue.find("ollama", None, None, responses=True).request(ChatCall(model="m", input=[]))
    assert request.url == "http://localhost:11434/v1/responses"


def test_a_name_without_a_url_is_nobodys() -> None:
    catalogue = Catalogue(Settings(providers={"ollama": ProviderOptions(model="m")}), {})
    for name in ("ollama", "nobody"):
        with pytest.raises(OptionError, match="base_url in the settings"):
            catalogue.find(name, None, None)
