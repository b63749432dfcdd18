"""The command ``penstock``: ``chat``, ``batch``, ``pipe``, ``bench``, ``serve``, ``keys``, ``doctor``, ``top``, more.

The result is on standard output, everything else on standard error. An error is one line, and the exit code is its
kind (`EXIT_CODES`). API keys come from the settings only (environment, TOML file): every user of the machine can read
a command line.

Each command imports what it needs when it runs.
"""

from __future__ import annotations

import inspect
import io
import sys
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.main import get_command

from penstock.cli.failures import EXIT_CODES, code_of, explain
from penstock.cli.terminal import output_failed, say
from penstock.config.presets import PRESETS
from penstock.config.providers import main_key_variables, remote_provider_names
from penstock.config.version import __version__
from penstock.errors import PenstockError

__all__ = ["app", "run_command"]

_UsageError: Final[type[Any]] = typer.BadParameter.__mro__[2]  # click's ClickException, wherever Typer keeps it

_Text: TypeAlias = str | None

app = typer.Typer(
    help="LLM token streams as supervised actors.",
    # \b keeps the lines of the paragraph as they are.
    epilog="\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items()),
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its frames leave no room for words in 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


_keys = typer.Typer(
    help="Make, list and revoke the API keys of penstock serve.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(_keys, name="keys", short_help="Make, list and revoke API keys of the gateway.")


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code. A failure becomes one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # LC_ALL=C is no reason to fail
    try:
        code = get_command(app).main(arguments or ["--help"], prog_name="penstock", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "penstock"
        say(f"{error.format_message()} (see {command} --help)")
        return 2
    except PenstockError as error:
        say(explain(error))
        return code_of(error)
    except OSError as error:  # of standard output: files and sockets are handled where they are used
        return output_failed(error)
    except SystemExit as error:
        if isinstance(error.__context__, OSError):  # Typer makes this of a broken pipe
            return output_failed(error.__context__)
        raise
    except Exception as error:
        trace = inspect.trace()[-1]
        say(f"a bug: {type(error).__name__} in {Path(trace.filename).name}, line {trace.lineno}; please report it")
        return 70


def _option(metavar: str, help: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help)


_CHAT_HELP: Final = (
    "Ask a model and print its answer as it comes. Ctrl-C cancels the call.\n\n"
    f"The API key is read from the provider's own variable ({', '.join(main_key_variables())}), from "
    "PENSTOCK_PROVIDER__API_KEY or from the TOML file.\n\n"
    "Without a provider and a base URL, the model's name may choose the provider: anthropic/claude-…"
)


_PROVIDERS: Final = (
    f"{', '.join(remote_provider_names())}, or loopback, which is embedded and needs no key.  [default: openai]"
)
_Provider = Annotated[_Text, _option("NAME", _PROVIDERS)]
_Model = Annotated[_Text, _option("NAME", "The model's name at the provider.", "--model", "-m")]
_BaseUrl = Annotated[_Text, _option("URL", "The provider's base URL, such as https://host/v1.")]
_System = Annotated[_Text, _option("TEXT", "The system message.", "--system", "-s")]
_Preset = Annotated[_Text, _option("NAME", f"Pace and batch size: {', '.join(PRESETS)}.")]
_Timeout = Annotated[_Text, _option("TIME", "Time for the whole call: 30s, 2m.  [default: 10m]")]
_Param = Annotated[
    list[str] | None,
    _option("NAME=VALUE", "A parameter of the request, in JSON or as text: -p temperature=0.2", "--param", "-p"),
]
_Mode = Annotated[
    str,
    _option(
        "NAME",
        "simple: one prompt; concurrent: several at once, each answer whole; aggregate: several at once, as the "
        "text comes; recovery: one, in up to four attempts.",
    ),
]
_Copy = Annotated[
    Path | None,
    _option(
        "FILE",
        "Copy the answer to a file, which is FILE.partial until it is complete; of several prompts, or with "
        "--json, every event as a line of JSON.",
        "--output",
        "-o",
    ),
]
_Config = Annotated[_Text, _option("FILE", "The TOML file.  [default: penstock.toml, if it exists]")]
_LogLevel = Annotated[_Text, _option("LEVEL", "debug, info, warning, error or critical.  [default: warning]")]


@app.command(help=_CHAT_HELP, short_help="Ask a model and print its answer as it comes.")
def chat(
    prompt: Annotated[
        list[str], typer.Argument(metavar="PROMPT", help="What to ask the model; - reads it from standard input.")
    ],
    mode: _Mode = "simple",
    provider: _Provider = None,
    model: _Model = None,
    base_url: _BaseUrl = None,
    system: _System = None,
    preset: _Preset = None,
    timeout: _Timeout = None,
    param: _Param = None,
    output: _Copy = None,
    stream_id: Annotated[_Text, _option("ID", "The stream's id in events and logs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as one line of JSON.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print statistics to standard error at the end.")] = False,
    reasoning: Annotated[
        bool | None,
        typer.Option(
            "--reasoning/--no-reasoning",
            help="Print the model's reasoning to standard error.  [default: if that is a terminal]",
        ),
    ] = None,
    config: _Config = None,
    log_level: _LogLevel = None,
) -> int:
    """Ask a model and print its answer as it comes; ``--help`` prints `_CHAT_HELP`."""
    from penstock.cli.asking import ModelChoice
    from penstock.cli.chat import Chat

    choice = ModelChoice(
        provider=provider,
        model=model,
        base_url=base_url,
        system=system,
        preset=preset,
        timeout=timeout,
        parameters=tuple(param or ()),
        config=config,
        log_level=log_level,
    )
    return Chat(
        prompts=tuple(prompt),
        mode=mode,
        output=output,
        choice=choice,
        stream_id=stream_id,
        as_json=as_json,
        stats=stats,
        reasoning=reasoning,
    ).run()


_BATCH_HELP: Final = (
    "Ask the prompts of a file, a few at a time, and write a result a line. After a kill, --resume goes on.\n\n"
    'INPUT has a JSON object a line: {"id": "q1", "prompt": "…"}, or messages instead of prompt; if needed system, '
    "model, params, metadata; or the lines of OpenAI's Batch API. - is standard input.\n\n"
    "The first Ctrl-C lets the calls under way finish, the second one cancels them.\n\n"
    "Exit code 0: all completed; 2: the input or an option is wrong, and nothing was asked; 3: the provider stopped "
    "the run (key, model, quota); 4: some failed or were not asked."
)


@app.command(help=_BATCH_HELP, short_help="Ask the prompts of a file, and write a result a line.")
def batch(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="The file of prompts, in JSON lines; - is standard input.")
    ],
    output: Annotated[Path, _option("FILE", "The file of results, in JSON lines.", "--output", "-o")],
    concurrency: Annotated[int, _option("NUMBER", "Calls at once.", "--concurrency", "-n")] = 10,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an output that has results already.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: ask again what has failed.")
    ] = False,
    retries: Annotated[
        int | None, _option("NUMBER", "Further attempts of a prompt that may succeed later.  [default: 2]")
    ] = None,
    max_cost: Annotated[float | None, _option("AMOUNT", "Start nothing once so much has been spent.")] = None,
    max_errors: Annotated[_Text, _option("NUMBER|PERCENT", "Start nothing once more have failed: 20, 5%.")] = None,
    limit: Annotated[int | None, _option("NUMBER", "Ask so many prompts at most in this run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the input, say what would be asked.")] = False,
    ordered: Annotated[bool, typer.Option("--ordered", help="Write the results in the order of the input.")] = False,
    form: Annotated[_Text, _option("NAME", "penstock or openai, the form of its Batch API.", "--format")] = "penstock",
    provider: _Provider = None,
    model: _Model = None,
    base_url: _BaseUrl = None,
    system: _System = None,
    timeout: _Timeout = None,
    param: _Param = None,
    config: _Config = None,
    log_level: _LogLevel = None,
) -> int:
    """Ask the prompts of a file; ``--help`` prints `_BATCH_HELP`."""
    from penstock.cli.asking import ModelChoice
    from penstock.cli.batch import BatchCommand
    from penstock.cli.failures import check_known

    check_known("format", form or "", ("penstock", "openai"))
    return BatchCommand(
        input=input,
        output=output,
        choice=ModelChoice(
            provider=provider,
            model=model,
            base_url=base_url,
            system=system,
            timeout=timeout,
            parameters=tuple(param or ()),
            config=config,
            log_level=log_level,
        ),
        concurrency=concurrency,
        retries=retries,
        resume=resume,
        retry_failed=retry_failed,
        max_cost=max_cost,
        max_errors=max_errors,
        limit=limit,
        dry_run=dry_run,
        ordered=ordered,
        form="openai" if form == "openai" else "penstock",
    ).run()


@app.command(short_help="Pace what comes on standard input.")
def pipe(
    rate: Annotated[
        float | None, _option("NUMBER", "The pace: tokens or characters in a second.", "--rate", "-r")
    ] = None,
    per: Annotated[str, _option("UNIT", "What --rate counts: token or character.")] = "token",
    tokenizer: Annotated[
        _Text,
        _option(
            "UNIT",
            "What a token is: word, sentence, line, character, or a number of characters.  "
            "[default: with --rate word, else what comes at once]",
        ),
    ] = None,
    pacing: Annotated[
        str,
        _option(
            "NAME",
            "fixed: by --rate; adaptive: bursts are spread over the pauses between them; or a preset with its rate, "
            "--batch and --flush: chat, document, realtime.",
        ),
    ] = "fixed",
    max_lag: Annotated[_Text, _option("TIME", "The longest wait with --pacing adaptive.  [default: 1s]")] = None,
    batch: Annotated[
        int | None, _option("NUMBER", "Write so many tokens at once.  [default: 1]", "--batch", "-b")
    ] = None,
    flush: Annotated[
        _Text, _option("TIME", "The longest wait for a batch, or for the rest of a word.  [default: 100ms]")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print statistics to standard error at the end.")] = False,
    config: _Config = None,
    log_level: _LogLevel = None,
) -> int:
    """Copy standard input to standard output through a stream that cuts it into tokens, batches and paces it.

    The text is UTF-8, and no character is cut; what is not UTF-8 is replaced by U+FFFD.
    """
    from penstock.cli.asking import ModelChoice
    from penstock.cli.pipe import Pipe

    choice = ModelChoice(config=config, log_level=log_level)
    return Pipe(
        by=tokenizer,
        pacing=pacing,
        max_lag=max_lag,
        rate=rate,
        per=per,
        batch=batch,
        flush=flush,
        stats=stats,
        choice=choice,
    ).run()


@app.command(short_help="Measure how fast a model answers.")
def bench(
    concurrency: Annotated[int, _option("NUMBER", "Requests at once.", "--concurrency", "-n")] = 10,
    requests: Annotated[int, _option("NUMBER", "Requests altogether.", "--requests")] = 100,
    prompt: Annotated[_Text, _option("TEXT", "What to ask.  [default: for a story of two hundred words]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, times in seconds.")] = False,
    provider: _Provider = None,
    model: _Model = None,
    base_url: _BaseUrl = None,
    system: _System = None,
    timeout: _Timeout = None,
    param: _Param = None,
    config: _Config = None,
    log_level: _LogLevel = None,
) -> int:
    """Ask a model many times, without retries: the time to the first token, tokens/s, the time between tokens, errors.

    Each request is paid for.
    """
    from penstock.cli.asking import ModelChoice
    from penstock.cli.bench import Bench

    choice = ModelChoice(
        provider=provider,
        model=model,
        base_url=base_url,
        system=system,
        timeout=timeout,
        parameters=tuple(param or ()),
        config=config,
        log_level=log_level,
    )
    return Bench(choice=choice, prompt=prompt, concurrency=concurrency, requests=requests, as_json=as_json).run()


_Cluster: TypeAlias = Annotated[
    _Text, _option("URL", "The Valkey or Redis server that all nodes share: redis://host:6379, rediss://, …")
]
_Node: TypeAlias = Annotated[_Text, _option("NAME", "The node's name in the cluster.  [default: the host's name]")]
_Workers: TypeAlias = Annotated[
    int, typer.Option(metavar="NUMBER", help="Processes behind the port, each a node: NAME-1 ….", min=1, max=256)
]
_Store: TypeAlias = Annotated[
    _Text, _option("FILE", "A SQLite file in which one process keeps its streams; see also --cluster.")
]


@app.command(short_help="Serve streams over HTTP, in every protocol of the gateway.")
def serve(
    host: Annotated[
        str, _option("ADDRESS", "The address to listen at. Without keys, one that only this machine can reach.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="NUMBER", help="The port to listen at; 0 takes a free one.", min=0, max=65_535)
    ] = 8900,
    provider: Annotated[
        _Text,
        _option("NAME", "The provider to ask by default; loopback is embedded and needs no key.  [default: openai]"),
    ] = None,
    model: Annotated[
        _Text, _option("NAME", "The model to ask if a request names none, at that provider.", "--model", "-m")
    ] = None,
    base_url: Annotated[_Text, _option("URL", "The provider's base URL, such as https://host/v1.")] = None,
    keys: Annotated[_Text, _option("FILE", "The file of API keys; penstock keys makes it.")] = None,
    cors: Annotated[
        list[str] | None,
        _option("ORIGIN", "An origin from which pages may use the gateway: https://app.example.com, or *.", "--cors"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        _option("NAME", "A host name that is answered without keys, besides this machine's own.", "--allow-host"),
    ] = None,
    drain_timeout: Annotated[
        _Text, _option("TIME", "How long streams may go on after a signal: 30s, 2m.  [default: 30s]")
    ] = None,
    config: Annotated[_Text, _option("FILE", "The TOML file.  [default: penstock.toml, if it exists]")] = None,
    log: Annotated[_Text, _option("FORMAT", "auto, console or json.  [default: auto]", "--log")] = None,
    log_level: Annotated[
        _Text, _option("LEVEL", "debug, info, warning, error or critical.  [default: warning]")
    ] = None,
    cluster: _Cluster = None,
    node: _Node = None,
    workers: _Workers = 1,
    store: _Store = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Run a load without an end at the embedded provider, for the dashboard.")
    ] = False,
) -> int:
    """Serve streams over HTTP until Ctrl-C or SIGTERM.

    The base URL is the first line on standard output. At the first signal no new stream is opened and those that are
    read go on for a while; then every reader gets a last frame, and the exit code is 0. The second signal ends this
    at once.

    It needs the extra server: pip install 'penstock[server]'
    """
    from penstock.cli.serve import Serve

    return Serve(
        host=host,
        port=port,
        provider=provider,
        model=model,
        base_url=base_url,
        keys=keys,
        cors=cors or [],
        allow_host=allow_host or [],
        drain_timeout=drain_timeout,
        config=config,
        log=log,
        log_level=log_level,
        cluster=cluster,
        node=node,
        workers=workers,
        store=store,
        demo=demo,
    ).run()


_File: TypeAlias = Annotated[str, typer.Argument(metavar="FILE", help="The file of keys.")]


def _limit(help: str) -> Any:
    return typer.Option(metavar="NUMBER", help=help, min=1)


@_keys.command(short_help="Make a key and print it.")
def new(
    file: _File,
    name: Annotated[str, _option("TEXT", "What it is for.")] = "",
    scope: Annotated[
        list[str] | None,
        _option("SCOPE", "read, write, or admin, which may use the streams of all keys.  [default: write]", "--scope"),
    ] = None,
    requests_per_minute: Annotated[int | None, _limit("The most requests in a minute.")] = None,
    tokens_per_minute: Annotated[int | None, _limit("The most tokens of its streams in a minute.")] = None,
    streams: Annotated[int | None, _limit("The most streams at once.")] = None,
    max_body: Annotated[int | None, _limit("The most bytes of a request's body.")] = None,
) -> int:
    """Make a key, print it to standard output, and add its hash to FILE, which is made if it does not exist.

    The key is shown this once; FILE does not have it. Running gateways accept it at once.
    """
    from penstock.cli.keys import make_key

    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "streams": streams,
        "max_body": max_body,
    }
    return make_key(file, name, scope or ["write"], **limits)


@_keys.command("list", short_help="List the keys of a file.")
def list_(
    file: _File,
    as_json: Annotated[bool, typer.Option("--json", help="Print every key as one line of JSON.")] = False,
) -> int:
    """List the keys of FILE: ids, names, scopes and limits, never the keys themselves."""
    from penstock.cli.keys import list_keys

    return list_keys(file, as_json=as_json)


@_keys.command(short_help="Revoke a key.")
def revoke(file: _File, key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id: key_…")]) -> int:
    """Revoke the key with that id. Running gateways refuse it from the next request on."""
    from penstock.cli.keys import revoke_key

    return revoke_key(file, key_id)


@app.command(short_help="Find out what a proxy does to the streams of a gateway.")
def doctor(
    url: Annotated[str, typer.Argument(metavar="URL", help="The gateway's base URL, as its clients reach it.")],
    key_env: Annotated[_Text, _option("NAME", "The environment variable with an API key of the gateway.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the probe that takes over a minute.")] = False,
    seconds: Annotated[float, typer.Option(metavar="NUMBER", help="How long that probe takes.", min=1)] = 75.0,
) -> int:
    """Tell whether something between this machine and the gateway at URL holds streams back, compresses them, cuts them
    off after a minute, or hides from the gateway that a client has left. A line for each check; what to set, if one
    finds a problem.
    """
    from penstock.cli.doctor import Doctor

    return Doctor(url, key_env, quick=quick, seconds=seconds).run()


@app.command(short_help="Show the streams of a gateway, as its dashboard does.")
def top(
    url: Annotated[str, _option("URL", "The gateway's base URL.")] = "http://127.0.0.1:8900",
    key_env: Annotated[_Text, _option("NAME", "The environment variable with an API key of the scope admin.")] = None,
) -> int:
    """Show the totals and the streams of a gateway, twice a second: s, t, m sort by speed, tokens and model; the arrow
    keys choose a stream, p pauses or resumes it, c cancels it; q ends. Without a terminal: a line each second.
    """
    from penstock.cli.top import Top

    return Top(url, key_env).run()


@app.command(short_help="Serve an LLM provider for tests, faults included.")
def loopback(
    host: Annotated[str, _option("ADDRESS", "The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, _option("NUMBER", "The port to listen at; 0 takes a free one.")] = 8787,
    tokens_per_second: Annotated[float, _option("NUMBER", "The pace of answers.")] = 40.0,
    api_key_env: Annotated[
        _Text, _option("VARIABLE", "The environment variable with the key that clients must send.")
    ] = None,
    replay: Annotated[
        Path | None,
        _option("FOLDER", "Recorded streams (*.sse, *.ndjson) to serve as models; a file's name is its model's."),
    ] = None,
) -> int:
    """Serve a provider on this machine that speaks five wire formats and has faults on request, until Ctrl-C.

    Its base URL is printed to standard output; how to use it, to standard error.
    """
    from penstock.cli.loopback import serve

    return serve(host, port, tokens_per_second, api_key_env, replay)


@app.command(short_help="Show streams, a retry, a crash and an agent at work.")
def run() -> int:
    """Show Penstock at work, without a key or a network.

    Several streams run at once. One is retried, a subscriber of another crashes, and an agent calls tools. The
    supervision tree and the statistics are printed. It ends by itself within 15 seconds.
    """
    from penstock.cli.demo import run_demo

    return run_demo()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _penstock(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """LLM token streams as supervised actors."""
