"""A consumer that collects function calls while they stream, without an agent: no function runs here.

Usage: python examples/function_collector.py     uses the model "tools" of the embedded provider, which calls a function
"""

import penstock

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class FunctionCollector:
    """Collects the text, and the arguments of every call while they arrive."""

    def __init__(self) -> None:
        self.text = ""
        self.arguments: dict[int, str] = {}
        self.calls: list[penstock.ToolCall] = []

    def take(self, event: penstock.Event) -> None:
        match event:
            case penstock.StreamReset():  # the answer starts again: discard what has arrived
                self.text = ""
                self.arguments.clear()
                self.calls.clear()
            case penstock.TokenEvent(kind="text", text=text):
                self.text += text
            case penstock.ToolCallStarted(index=index, name=name):
                self.arguments[index] = ""
                print(f"call {index}: {name}")
            case penstock.ToolCallDelta(index=index, text=text):
                self.arguments[index] += text
                print(f"call {index}: {self.arguments[index]}")
            case penstock.ToolCallCompleted(call=call):
                self.calls.append(call)


def main() -> None:
    collector = FunctionCollector()
    with penstock.System() as system:
        messages = [{"role": "user", "content": "What is the weather in Vienna?"}]
        stream = system.chat("tools", messages, provider="loopback", tools=[WEATHER])
        for event in stream:
            collector.take(event)
        end = stream.result(timeout=10)
    for call in collector.calls:
        # `arguments` is None if the model's JSON is broken or cut off: such a call must not run.
        print(f"{call.name}({call.arguments}) – to be run" if call.arguments is not None else f"{call.name}: broken")
    assert tuple(collector.calls) == end.tool_calls
    print(f"finish reason: {end.finish_reason}")


if __name__ == "__main__":
    main()
