"""What ``import penstock`` loads, and when the rest comes; the names of the package's root."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

import penstock

ROOT = Path(penstock.__file__).parents[1]
HEAVY = (
    "penstock.adapters.loopback",
    "penstock.adapters.providers.anthropic",
    "penstock.adapters.providers.gemini",
    "penstock.adapters.providers.ollama",
    "penstock.adapters.providers.openai",
    "docstring_parser",
    "pydantic",
    "pydantic_settings",
    "pygments",
    "requests",
    "rich",
    "sseclient",
    "structlog",
    "typer",
    "urllib3",
)


def run(code: str) -> str:
    """Run a program in a fresh interpreter without settings; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "NO_PROXY": "127.0.0.1"},
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """The modules of `HEAVY` that a program has loaded at its end; it must print nothing itself."""
    end = f"\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    return set(run(textwrap.dedent(code) + end).split())


def test_import_penstock_loads_no_other_module_of_the_package() -> None:
    ours = "import sys, penstock; print(*(name for name in sys.modules if name.startswith('penstock')))"
    assert run(ours).split() == ["penstock"]
    assert loaded_by("import penstock") == set()


def test_a_system_with_streams_of_its_own_loads_none_of_the_heavy_modules() -> None:
    assert loaded_by("import penstock; penstock.System, penstock.tool, penstock.Settings()") == set()
    code = """
        import penstock
        with penstock.System() as system:
            stream = system.open_stream()
            stream.process_token("Hi")
            stream.stop()
            assert stream.result(10).text == "Hi"
    """
    assert loaded_by(code) == set()


def test_a_provider_is_loaded_when_it_is_asked_and_requests_when_it_is_called() -> None:
    for name in ("anthropic", "ollama"):
        loaded = loaded_by(f"import penstock; penstock.System().provider({name!r}, api_key='key')")
        assert {one for one in loaded if one.startswith("penstock.")} == {f"penstock.adapters.providers.{name}"}
        assert not loaded & {"requests", "urllib3"}
    call = """
        import penstock
        with penstock.System() as system:
            assert system.chat("echo", "Hello", provider="loopback").result(30).text == "Hello"
    """
    assert loaded_by(call) == {
        "penstock.adapters.loopback",
        "penstock.adapters.providers.openai",
        "requests",
        "sseclient",
        "urllib3",
    }


def test_pydantic_is_loaded_by_a_key_a_setting_or_a_tool() -> None:
    assert loaded_by("import penstock; penstock.ProviderOptions(model='m')") == set()
    assert "pydantic" in loaded_by("import penstock; penstock.ProviderOptions(api_key='key')")
    set_one = "import os, penstock; os.environ['PENSTOCK_STREAM__BATCH_SIZE'] = '3'; penstock.Settings.load()"
    assert "pydantic_settings" in loaded_by(set_one)
    assert {"pydantic", "docstring_parser"} <= loaded_by("import penstock\n@penstock.tool\ndef f() -> int: ...")


def test_structlog_is_loaded_by_the_first_line_that_is_written() -> None:
    quiet = "import penstock; penstock.configure_logging(); from penstock.config.logs import get_logger"
    assert loaded_by(quiet) == set()
    assert "structlog" in loaded_by(f"{quiet}; get_logger().warning('loud')")


# --- the names -------------------------------------------------------------------------------------------------------


def imports_for_type_checkers() -> dict[str, str]:
    """The names that type checkers see, and the modules they come from."""
    tree = ast.parse(Path(penstock.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "penstock"  # a module, such as `penstock.sources`
        for alias in node.names
    }


def test_every_public_name_is_the_thing_that_type_checkers_see() -> None:
    seen = imports_for_type_checkers()
    assert sorted(seen) == sorted(penstock.__all__)
    for name, module in seen.items():
        assert getattr(penstock, name) is getattr(importlib.import_module(module), name), name
        assert name in vars(penstock)  # the next look finds it without `__getattr__`


def test_the_home_of_every_name_is_the_module_that_defines_it() -> None:
    assert {name: f"penstock.{home}" for home, names in penstock._HOMES.items() for name in names} == {
        name: module
        for name, module in imports_for_type_checkers().items()
        if module not in ("penstock.errors", "penstock.events")
    }


def test_dir_and_star_import_have_every_name_before_any_is_used() -> None:
    run("import penstock; assert set(penstock.__all__) <= set(dir(penstock))")
    run("from penstock import *; System, TokenEvent, OptionError, chain, __version__")


def test_the_rooms_are_attributes() -> None:
    names = "errors events config ports actors supervisors adapters stream agent system inspection testing toolbox"
    run(
        f"import penstock\nfor name in {names.split()!r}: assert getattr(penstock, name).__name__ == 'penstock.' + name"
    )


def test_an_unknown_name_is_an_attribute_error_with_a_suggestion_where_one_is_near() -> None:
    with pytest.raises(AttributeError, match=r"^module 'penstock' has no attribute 'Sytem'. Did you mean: 'System'\?$"):
        penstock.Sytem  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"^module 'penstock' has no attribute 'xyzzy'$") as caught:
        penstock.xyzzy  # type: ignore[attr-defined]  # noqa: B018
    assert caught.value.name == "xyzzy"
    with pytest.raises(ImportError, match="cannot import name 'xyzzy' from 'penstock'"):
        exec("from penstock import xyzzy")
    assert not hasattr(penstock, "__wrapped__")


def test_many_threads_may_use_the_names_for_the_first_time_at_once() -> None:
    run("""
        import threading, penstock
        names = [name for name in penstock.__all__]
        barrier, seen, failed = threading.Barrier(16), [], []
        def look(first):
            barrier.wait()
            try:
                seen.append({name: getattr(penstock, name) for name in names[first:] + names[:first]})
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=look, args=(7 * number,)) for number in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not failed, failed
        assert all(found[name] is seen[0][name] for found in seen for name in names)
    """)


def test_the_version_is_that_of_the_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert penstock.__version__ == project["version"]
