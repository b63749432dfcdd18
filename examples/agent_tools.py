"""An agent with two real tools: a calculator, and a search for files in a folder.

Usage:
    python examples/agent_tools.py                                  no key: a scripted model, in all five wire formats
    python examples/agent_tools.py --model gpt-4.1-mini "What is 17 * 23?"           OPENAI_API_KEY is set
    python examples/agent_tools.py --model anthropic/claude-sonnet-4-5 --folder src "Which files mention actors?"
"""

import argparse
import ast
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import penstock
from penstock.adapters.loopback.script import Answer, Cycle, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider

# --- the calculator: Python's own parser, restricted to numbers and operators ----------------------------------------

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
LONGEST_EXPRESSION = 200
LARGEST_EXPONENT = 100


@penstock.tool(timeout=2)
def calculate(expression: str) -> float:
    """Compute an arithmetic expression.

    Args:
        expression: numbers, brackets and + - * / // % **, for example (3 + 4) * 2
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(f"the expression is longer than {LONGEST_EXPRESSION} characters")
    result: float = value_of(ast.parse(expression, mode="eval").body)
    return result


def value_of(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](value_of(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = value_of(left), value_of(right)
            if abs(exponent) > LARGEST_EXPONENT or abs(base) > 1e15:
                raise ValueError("a power too large to compute")
            return base**exponent
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](value_of(left), value_of(right))
    raise ValueError(f"{type(node).__name__} is no arithmetic")


# --- the search: in one folder only, with no more results than a model can read --------------------------------------

MOST_FILES = 20
LARGEST_FILE = 1_000_000


def search_in(folder: Path) -> penstock.FunctionTool:
    root = folder.resolve()

    @penstock.tool(name="search_files", timeout=20)
    def search(text: str, context: penstock.ToolContext, pattern: str = "*") -> list[str]:
        """Find the files that contain a text; answers with their paths and the first line that has it.

        Args:
            text: what to look for; small and capital letters are the same.
            pattern: which files to look at, for example *.py
            context: not the model's: this call's own
        """
        found: list[str] = []
        for looked, path in enumerate(files(root, pattern)):
            if context.is_cancelled or len(found) == MOST_FILES:
                break
            if looked % 100 == 0:
                context.report({"files_looked_at": looked})
            lines = path.read_text("utf-8", errors="replace").splitlines()
            number = next((at for at, line in enumerate(lines, 1) if text.lower() in line.lower()), None)
            if number is not None:
                found.append(f"{path.relative_to(root)}:{number}: {lines[number - 1].strip()[:120]}")
        return found

    return search


def files(root: Path, pattern: str) -> Iterator[Path]:
    for path in sorted(root.rglob(Path(pattern).name or "*")):
        inside = path.resolve().is_relative_to(root)  # a symbolic link may point outside the folder
        if inside and path.is_file() and path.stat().st_size <= LARGEST_FILE:
            yield path


# --- the conversation ------------------------------------------------------------------------------------------------


def talk(agent: penstock.Agent, message: str) -> None:
    for event in agent.stream_chat(message):
        match event:
            case penstock.TokenEvent(kind="text", text=text):
                print(text, end="", flush=True)
            case penstock.ToolExecutionStarted(calls=calls):
                print("".join(f"[{call.name} {call.arguments_raw}]\n" for call in calls), end="")
            case penstock.ToolResult(name=name, status=status, content=content):
                print(f"[{name}: {status}: {content}]")
            case penstock.StreamCompleted(metrics=metrics, usage=usage):
                assert metrics is not None
                tokens = "?" if usage is None else usage.output_tokens
                print(f"\n[{metrics.function_calls} calls, {tokens} tokens, {metrics.total_time_s:.2f} s]\n")
            case penstock.StreamFailed(error=error):
                print(f"\n[failed: {error}]\n")


SCRIPT = Script(
    replies=Cycle(
        (
            Answer(
                text="Let me see.\n",
                tool_calls=(
                    ScriptedCall("calculate", '{"expression": "(3 + 4) * 2 ** 5"}'),
                    ScriptedCall("search_files", '{"text": "calculator", "pattern": "*.py"}'),
                ),
            ),
            Answer(text="It is 224, and this example has the calculator in it."),
        )
    )
)


QUESTION = "What is (3 + 4) * 2 ** 5, and which files here mention a calculator?"


def show_every_format(folder: Path) -> None:
    """Run the same conversation with a scripted model in the wire format of each provider."""
    tools = [calculate, search_in(folder)]
    for name in ("openai", "openai-responses", "anthropic", "ollama", "gemini"):
        with LoopbackProvider(SCRIPT) as provider, penstock.System() as system:
            base_url = provider.base_url if name.startswith("openai") else provider.url
            print(f"--- {name}")
            with system.agent(model="scripted", tools=tools, provider=name, base_url=base_url, api_key="none") as agent:
                talk(agent, QUESTION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "message", nargs="?", default="What is (3 + 4) * 2 ** 5? Which files here mention a calculator?"
    )
    parser.add_argument("--model", help="a model's name, with its provider: anthropic/claude-sonnet-4-5")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where the model may search")
    arguments = parser.parse_args()
    if arguments.model is None:
        show_every_format(arguments.folder)
        return
    tools = [calculate, search_in(arguments.folder)]
    with penstock.System() as system, system.agent(model=arguments.model, tools=tools) as agent:
        talk(agent, arguments.message)


if __name__ == "__main__":
    main()
