"""The command ``penstock``: ``chat``, ``loopback``, ``run``.

What was asked for is on standard output, everything else on standard error. An error is one line, and the exit code
says its kind (`EXIT_CODES`). Keys come from the settings (environment, TOML file) only, never from the command line,
where every user of the machine could read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import inspect
import io
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from typer.main import get_command

import penstock.adapters.loopback as loopback_package
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.replay import recorded_models
from penstock.adapters.loopback.server import LoopbackProvider, serve
from penstock.cli import demo
from penstock.cli.terminal import (
    EXIT_CODES,
    Answer,
    Interrupts,
    Output,
    code_of,
    explain,
    output_failed,
    say,
    visible,
    write_error,
)
from penstock.config.checks import check_choice
from penstock.config.durations import parse_duration
from penstock.config.logs import configure_logging
from penstock.config.presets import PRESETS
from penstock.config.providers import main_key_variables, remote_provider_names
from penstock.config.settings import Settings
from penstock.errors import OptionError, PenstockError
from penstock.events import StreamCompleted, StreamFailed, TerminalEvent
from penstock.stream import Stream
from penstock.system import System

__all__ = ["app", "main"]

_UsageError: Final[type[Any]] = typer.BadParameter.__mro__[2]  # click's ClickException, wherever Typer keeps it

app = typer.Typer(
    help="LLM token streams as supervised actors.",
    epilog="Exit codes: " + " · ".join(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items()),
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # LC_ALL=C is no reason to fail
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run one command; whatever goes wrong becomes one line and a code."""
    try:
        given = get_command(app).main(arguments or ["--help"], prog_name="penstock", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return given if isinstance(given, int) else 0
    except _UsageError as error:
        say(f"{error.format_message()} (see penstock --help)")
        return 2
    except PenstockError as error:
        say(explain(error))
        return code_of(error)
    except OSError as error:  # files and sockets are dealt with elsewhere: this is standard output
        return output_failed(error)
    except SystemExit as error:
        if isinstance(error.__context__, OSError):  # what Typer makes of a broken pipe
            return output_failed(error.__context__)
        raise
    except Exception as error:
        trace = inspect.trace()[-1]
        say(f"a bug: {type(error).__name__} in {Path(trace.filename).name}, line {trace.lineno}; please report it")
        return 70


# --- chat ------------------------------------------------------------------------------------------------------------


_CHAT_HELP: Final = (
    "Ask a model and print its answer as it comes.\n\n"
    f"The key is taken from the provider's own variable ({', '.join(main_key_variables())}), from "
    "PENSTOCK_PROVIDER__API_KEY or the TOML file. Without --provider and --base-url, a model such as "
    "anthropic/claude-… chooses its provider itself. Ctrl-C cancels the call."
)


@app.command(help=_CHAT_HELP)
def chat(
    prompt: Annotated[str, typer.Argument(help="What to say to the model; - reads it from standard input.")],
    provider: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(remote_provider_names())}, or loopback: an embedded one that needs no key."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model, as the provider calls it.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where the provider is: https://host/v1")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="The system message.")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Pace and batches: {', '.join(PRESETS)}.")] = None,
    timeout: Annotated[str | None, typer.Option(help="For everything together: 30s, 2m … (default: 10m)")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="NAME=VALUE for the request, VALUE in JSON or text: -p temperature=0.2"),
    ] = None,
    stream_id: Annotated[str | None, typer.Option(help="The stream's id, in events and logs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as a JSON object in a line.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print statistics to standard error at the end.")] = False,
    reasoning: Annotated[
        bool | None,
        typer.Option(
            "--reasoning/--no-reasoning",
            help="Print the model's reasoning to standard error. (default: if that is a terminal)",
        ),
    ] = None,
    config: Annotated[str | None, typer.Option(help="The TOML file. (default: penstock.toml if there is one)")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning, error or critical. (default: warning)")
    ] = None,
) -> int:
    """Ask a model and print its answer as it comes; `_CHAT_HELP` is what ``--help`` prints."""
    text = _read_prompt(prompt)
    parameters = _parameters(param or [])
    for option, value in (("--provider", provider), ("--model", model), ("--base-url", base_url)):
        if value == "":  # an unset shell variable, most likely; it must not mean the default
            raise OptionError(option, value, "some text")
    overrides: dict[str, dict[str, Any]] = {}
    if preset is not None:
        check_choice("--preset", preset, tuple(PRESETS))
        overrides["chat"] = {"preset": preset}
    if timeout is not None:
        overrides["request"] = {"total_timeout": parse_duration(timeout, field="--timeout")}
    settings = _load(config, log_level, overrides)
    name = provider or settings.provider.name
    if base_url is None and (name == "loopback" or (not provider and (model or "").startswith("loopback/"))):
        _bypass_proxies()
    output = Output()
    watched = sys.stderr is not None and sys.stderr.isatty()
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    begun = time.monotonic()
    with Interrupts() as interrupts, System(settings) as house:
        try:
            stream = house.chat(
                model or _default_model(settings, name),
                messages,
                provider=provider,
                base_url=base_url,
                stream_id=stream_id,
                **parameters,
            )
        except OptionError as error:
            if error.field != "model" or model:
                raise
            raise OptionError("model", None, f"give --model or set {_model_variable(settings, name)}") from None
        interrupts.watch(lambda: stream.cancel("interrupted"))
        try:
            end = Answer(
                stream,
                output,
                look=lambda: house.get_stream_info(stream.stream_id),
                as_json=as_json,
                reasoning=watched if reasoning is None else reasoning,
                patient=watched,
            ).print()
        except OSError:
            stream.cancel("standard output is gone")
            raise
        if stats:
            _print_statistics(house, stream, end)
        return _conclude(stream, end, name, time.monotonic() - begun, interrupts.signal)


def _read_prompt(prompt: str) -> str:
    if prompt == "-":
        if sys.stdin is None:
            raise OptionError("PROMPT", prompt, "a text; standard input is closed")
        if sys.stdin.isatty():
            say("reading the prompt; end it with Ctrl-D")
        raw = sys.stdin.buffer.read()
    else:
        raw = os.fsencode(prompt)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise OptionError("PROMPT", f"{len(raw)} bytes", f"text in UTF-8 (byte {error.start} is none)") from None
    if not text.strip():
        raise OptionError("PROMPT", text, "some text")
    return text


_TAKEN: Final = frozenset(inspect.signature(System.chat).parameters)


def _parameters(given: list[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise OptionError("--param", each, "NAME=VALUE, for instance temperature=0.2")
        if name in _TAKEN:
            raise OptionError("--param", name, "a parameter that is not the command's own")
        try:
            parameters[name] = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError):
            parameters[name] = value
        except RecursionError:
            raise OptionError("--param", name, "a value that is not nested so deeply") from None
    return parameters


_OPTIONS: Final = {"request.total_timeout": "--timeout", "log.level": "--log-level"}


def _load(config: str | None, log_level: str | None, overrides: dict[str, dict[str, Any]]) -> Settings:
    if log_level is not None:
        overrides["log"] = {"level": log_level}
    if config == "":
        raise OptionError("--config", config, "the path of a TOML file")
    try:
        settings = Settings.load(config, **overrides)
    except OptionError as error:
        option = _OPTIONS.get(error.field, "")
        group, _, name = error.field.partition(".")
        if not option or name not in overrides.get(group, {}):
            raise
        raise OptionError(option, error.got, error.allowed) from None
    configure_logging(settings.log.level, settings.log.format)
    return settings


def _default_model(settings: Settings, provider: str) -> str:
    model = settings.model(provider)
    if model is None and provider == "openai-responses":
        model = settings.model("openai")
    return model or ("echo" if provider == "loopback" else "")


def _model_variable(settings: Settings, provider: str) -> str:
    if provider == settings.provider.name:
        return "PENSTOCK_PROVIDER__MODEL"
    return f"PENSTOCK_PROVIDERS__{provider.upper().replace('-', '_')}__MODEL"


def _bypass_proxies() -> None:
    """What is in this process is not to be looked for behind a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, ["127.0.0.1", os.environ.get(name)]))


def _conclude(stream: Stream, end: TerminalEvent, provider: str, seconds: float, interrupted: int | None) -> int:
    """Say how it ended, where that is not plain; return the exit code."""
    tokens = stream.statistics().tokens_delivered
    came = f"{tokens} token{'s' * (tokens != 1)} had come in {seconds:.1f} s"
    if isinstance(end, StreamCompleted):
        for call in end.tool_calls:
            say(f"the model asks for {call.name}({call.arguments_raw})")
        if end.refusal:
            say("the model refused")
        elif end.finish_reason not in ("stop", "tool_calls"):
            say(f"the model stopped before it was done: {end.raw_finish_reason or end.finish_reason}")
        return 0
    if isinstance(end, StreamFailed):
        say(explain(end.error, end.provider or provider) + (f"; {came}" if tokens else ""))
        return code_of(end.error)
    say(f"cancelled; {came if tokens else f'nothing had come in {seconds:.1f} s'}")
    return 1 if interrupted is None else 128 + interrupted


def _print_statistics(house: System, stream: Stream, end: TerminalEvent) -> None:
    seen = stream.statistics()
    rows: dict[str, object] = {
        "stream": stream.stream_id,
        "model": end.model or "not told",
        "end": type(end).__name__,
        "requests": house.get_stream_info(stream.stream_id).attempts,
        "tokens": seen.tokens_delivered,
        "batches": seen.batches_flushed,
        "first token": demo.milliseconds(seen.time_to_first_token_s),
        "tokens/s": f"{seen.tokens_per_second:.1f}",
        "between tokens, p50": demo.milliseconds(seen.inter_token_p50_s),
        "between tokens, p99": demo.milliseconds(seen.inter_token_p99_s),
        "back-pressure": seen.backpressure_events,
    }
    if isinstance(end, StreamCompleted):
        rows["finish reason"] = end.finish_reason
    if end.usage is not None:
        told = msgspec.structs.asdict(end.usage)
        rows["usage"] = ", ".join(f"{told[each]} {each}" for each in told if told[each] is not None)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, visible(str(value)))
    with contextlib.suppress(OSError, ValueError):
        Console(stderr=True, highlight=False, markup=False).print(table)


# --- loopback and run ------------------------------------------------------------------------------------------------


@app.command()
def loopback(
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at; 0 takes a free one.")] = 8787,
    tokens_per_second: Annotated[float, typer.Option(help="The pace of answers.")] = 40.0,
    api_key_env: Annotated[
        str | None, typer.Option(help="The environment variable with the key that clients must send.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="A folder with recorded streams (*.sse, *.ndjson): each is a model of its file's name."),
    ] = None,
) -> int:
    """Run a provider on this machine that speaks five wire formats, faults included, until Ctrl-C.

    Its base URL is on standard output; what to do with it on standard error.
    """
    key = os.environ.get(api_key_env) if api_key_env is not None else None
    if api_key_env is not None and not key:
        raise OptionError("--api-key-env", api_key_env, "an environment variable with a key in it")
    script = default_script(tokens_per_second)
    if replay is not None:
        script = dataclasses.replace(script, models={**script.models, **recorded_models(replay)})

    def announce(provider: LoopbackProvider) -> None:
        print(provider.base_url, flush=True)  # noqa: T201
        write_error(_instructions(provider.base_url, api_key_env))

    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve(host, port, script, api_key=key, ready=announce)
    say("stopped")
    return 0


def _instructions(url: str, key: str | None) -> str:
    before, provider = (f'OPENAI_API_KEY="${key}" ', "openai") if key else ("", "loopback")
    header = f' -H "Authorization: Bearer ${key}"' if key else ""
    body = '{"model": "loopback", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    models = "".join(f"  {name:<21} {meaning}\n" for name, meaning in _models())
    return f"""
Try it in another terminal (Ctrl-C ends it here):

  {before}penstock chat "Hello" --provider {provider} --base-url {url} --model loopback

  curl -N {url}/chat/completions{header} -H "Content-Type: application/json" \\
    -d '{body}'

Anthropic's, Ollama's and Gemini's clients find it at {url.removesuffix("/v1")}

Models:

{models}"""


def _models() -> list[tuple[str, str]]:
    """The models with what each does, from the table in the provider's own documentation."""
    told = re.findall(r"^``([\w-]+)``\s+(.+)$", loopback_package.__doc__ or "", re.MULTILINE)
    return [(name, meaning.replace("``", "")) for name, meaning in told]


@app.command()
def run() -> int:
    """Show it: several streams at once, a retry, a crash that disturbs nobody, an agent with tools, the tree."""
    _bypass_proxies()
    configure_logging("critical")  # the demo's crash is on purpose, and told in its own words
    if sys.stdout is None:
        raise OSError(9, "is closed")
    with Interrupts() as interrupts:
        kept = demo.run(lambda: interrupts.signal is not None)
        return 128 + interrupts.signal if interrupts.signal is not None else 0 if kept else 1


# --- the whole -------------------------------------------------------------------------------------------------------


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {importlib.metadata.version('penstock')}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _penstock(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """LLM token streams as supervised actors."""
