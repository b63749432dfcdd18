"""Tools made from functions: the schema that a model sees, the arguments of the function, the result for the model."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
import threading
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from penstock.adapters.tools import FunctionTool, to_tool, tool
from penstock.errors import OptionError, ToolArgumentsError, ToolError
from penstock.ports import ToolContext


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Place(BaseModel):
    city: str
    country: str = "AT"


@dataclass
class Forecast:
    day: date
    degrees: float


def context() -> ToolContext:
    return ToolContext("call_1", "tool", lambda progress: None)


def call(it: FunctionTool, arguments: dict[str, Any]) -> str:
    return it.run(it.check(arguments), context())


def test_the_schema_has_types_defaults_and_what_the_docstring_says_of_each_parameter() -> None:
    @tool
    def weather(place: Place, unit: Unit = Unit.CELSIUS, days: Annotated[int, Field(ge=1, le=7)] = 1) -> str:
        """Tell the weather.

        It is not always right.

        Args:
            place: where.
            days: for how many days.
        """
        return f"{place.city} {unit.value} {days}"

    assert weather.name == "weather"
    assert weather.description == "Tell the weather.\n\nIt is not always right."
    properties = weather.parameters["properties"]
    assert properties["days"] == {
        "default": 1, "description": "for how many days.", "maximum": 7, "minimum": 1, "type": "integer"
    }  # fmt: skip
    assert properties["place"]["description"] == "where."
    assert weather.parameters["required"] == ["place"]
    assert weather.parameters["additionalProperties"] is False
    assert "title" not in json.dumps(properties)
    assert call(weather, {"place": {"city": "Graz"}, "unit": "fahrenheit"}) == "Graz fahrenheit 1"


@pytest.mark.parametrize(
    "docstring",
    [
        "Add.\n\nArgs:\n    a: the first one",
        "Add.\n\nParameters\n----------\na : int\n    the first one",
        "Add.\n\n:param a: the first one",
    ],
)
def test_the_usual_forms_of_docstrings_are_understood(docstring: str) -> None:
    def add(a: int) -> int:
        return a

    add.__doc__ = docstring
    made = tool(add)
    assert made.description == "Add."
    assert made.parameters["properties"]["a"]["description"] == "the first one"


def test_parameters_may_be_called_like_methods_of_pydantic() -> None:
    @tool
    def odd(json: str, copy: int, schema: bool, model_config: str = "m") -> str:
        return f"{json}{copy}{schema}{model_config}"

    assert list(odd.parameters["properties"]) == ["json", "copy", "schema", "model_config"]
    assert call(odd, {"json": "a", "copy": 1, "schema": True}) == "a1Truem"


def test_a_default_that_is_no_json_is_the_functions_own() -> None:
    marker = object()

    @tool
    def find(text: str, default: Any = marker) -> bool:
        return default is marker

    assert call(find, {"text": "a"}) == "true"
    assert "default" not in find.parameters.get("required", [])


def test_positional_only_parameters_and_methods_and_partials_work() -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self, by: int, /) -> int:
            self.count += by
            return self.count

        def __call__(self, text: str) -> str:
            return text * self.count

    counter = Counter()
    assert call(tool(counter.add), {"by": 2}) == "2"
    assert call(tool(name="times")(counter), {"text": "x"}) == "xx"

    def power(base: int, exponent: int) -> int:
        return int(base**exponent)

    square = tool(name="square")(functools.partial(power, exponent=2))
    assert call(square, {"base": 3}) == "9"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "city: Field required"),
        ({"city": 3}, "city: Input should be a valid string"),
        ({"city": "Graz", "days": "many"}, "days: Input should be a valid integer"),
        ({"city": "Graz", "zip": 1}, "zip: Extra inputs are not permitted"),
        ("Graz", "forecast takes a JSON object, not a string"),
        (["Graz"], "an array"),
        (None, "null"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_what_is_wrong(arguments: Any, problem: str) -> None:
    @tool
    def forecast(city: str, days: int = 1) -> str:
        return city

    with pytest.raises(ToolArgumentsError) as refused:
        forecast.check(arguments)
    assert problem in str(refused.value)


def test_a_refusal_does_not_show_the_values() -> None:
    @tool
    def login(pin: int) -> str:
        return "in"

    with pytest.raises(ToolArgumentsError) as refused:
        login.check({"pin": "geheim"})
    assert "geheim" not in str(refused.value)
    assert refused.value.__suppress_context__  # pydantic's own error shows the values, and must not be in the traceback


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("plain", "plain"),
        (None, "null"),
        (3.5, "3.5"),
        ({"a": [1, Place(city="Wien")]}, '{"a":[1,{"city":"Wien","country":"AT"}]}'),
        (Forecast(date(2026, 1, 2), 3.0), '{"day":"2026-01-02","degrees":3.0}'),
        (Unit.CELSIUS, '"celsius"'),
    ],
)
def test_a_result_is_text_or_json(result: Any, text: str) -> None:
    @tool
    def give() -> Any:
        return result

    assert call(give, {}) == text


def test_a_result_that_is_no_json_is_an_error_that_says_its_type_only() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "geheim"

    @tool
    def give() -> Any:
        return Odd()

    with pytest.raises(ToolError) as refused:
        call(give, {})
    assert "Odd" in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_an_async_function_is_run_to_its_end() -> None:
    @tool
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    assert call(double, {"x": 4}) == "8"


def test_an_async_function_is_cancelled_where_it_waits() -> None:
    waiting, cleaned = threading.Event(), threading.Event()

    @tool
    async def wait() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    its = context()
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            wait.run({}, its)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(5)
    its.cancel()
    thread.join(5)
    assert cleaned.is_set()
    assert isinstance(outcome[0], asyncio.CancelledError)


def test_one_that_is_cancelled_before_it_begins_never_waits() -> None:
    @tool
    async def wait() -> None:
        await asyncio.Event().wait()

    its = context()
    its.cancel()
    with pytest.raises(asyncio.CancelledError):
        wait.run({}, its)


def test_a_parameter_for_the_context_is_not_the_models() -> None:
    told: list[Any] = []
    its = ToolContext("call_7", "work", told.append)

    @tool
    def work(steps: int, ctx: ToolContext) -> str:
        for step in range(steps):
            ctx.report(step)
        return ctx.call_id

    assert list(work.parameters["properties"]) == ["steps"]
    assert work.run(work.check({"steps": 2}), its) == "call_7"
    assert told == [0, 1]
    its.cancel()
    its.report("late")
    assert told == [0, 1]


def test_a_schema_of_ones_own_takes_the_place_of_the_signatures() -> None:
    schema = {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Look it up.",
            "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
        },
    }
    made = to_tool((schema, lambda **given: given["key"]))
    assert (made.name, made.description) == ("lookup", "Look it up.")
    assert made.run(made.check({"key": "k"}), context()) == "k"
    with pytest.raises(ToolArgumentsError, match="missing key"):
        made.check({})

    narrow = to_tool(({"name": "narrow", "parameters": {}}, lambda key: key))
    with pytest.raises(ToolArgumentsError, match="missing a required argument"):
        narrow.check({"other": 1})


def test_whatever_can_be_a_tool_becomes_one_and_a_tool_stays_itself() -> None:
    def plain(x: int) -> int:
        return x

    made = tool(plain)
    assert to_tool(made) is made
    assert to_tool(plain).name == "plain"
    assert made(3) == 3
    assert repr(made) == "FunctionTool(plain)"
    nonsense: Any
    for nonsense in (3, "name", None, ({"parameters": {}}, plain)):
        with pytest.raises(OptionError, match="allowed"):
            to_tool(nonsense)


def test_what_a_model_could_not_give_is_refused_when_the_tool_is_made() -> None:
    def many(*args: int) -> int:
        return 0

    def strange(lock: threading.Lock) -> int:
        return 0

    with pytest.raises(OptionError, match="args"):
        tool(many)
    with pytest.raises(OptionError, match="JSON can carry"):
        tool(strange)
    with pytest.raises(OptionError, match="64 letters"):
        tool(lambda: None)
    with pytest.raises(OptionError, match="timeout"):
        tool(timeout=0)(many)
    with pytest.raises(OptionError, match="object"):
        tool(name="t", schema={"type": "string"})(many)


def test_literals_become_enums_in_the_schema() -> None:
    @tool
    def paint(colour: Literal["red", "blue"]) -> str:
        return colour

    assert paint.parameters["properties"]["colour"]["enum"] == ["red", "blue"]


# --- names of partials -----------------------------------------------------------------------------------------------


class Shop:
    """A shop."""

    def order(self, item: str, count: int = 1) -> str:
        """Order something.

        Args:
            item: what.
        """
        return f"{count} {item}"

    def __call__(self, item: str) -> str:
        return item

    due = functools.partialmethod(order, count=3)


def sell(item: str, count: int, price: float) -> str:
    """Sell something.

    Args:
        item: the article.
    """
    return f"{count} {item} {price}"


class Kept(functools.partial[Any]):
    """A partial that does not dissolve in another one."""


def test_a_partial_is_named_and_described_after_its_function() -> None:
    once = functools.partial(sell, price=1.5)
    for made in (tool(once), tool(functools.partial(once, count=2)), tool(Kept(Kept(sell, price=1.5)))):
        assert (made.name, made.description) == ("sell", "Sell something.")
        assert made.parameters["properties"]["item"] == {"description": "the article.", "type": "string"}
        assert call(made, {"item": "tea", "count": 2}) == "2 tea 1.5"


def test_a_partial_of_a_method_or_of_a_callable_object_has_its_name() -> None:
    for function in (functools.partial(Shop().order, count=2), Shop().due):
        made = to_tool(function)
        assert (made.name, made.description) == ("order", "Order something.")
    assert to_tool(Shop()).name == to_tool(functools.partial(Shop())).name == "Shop"
    assert to_tool(functools.partial(Shop())).description == "A shop."
    assert call(tool(functools.partial(Shop())), {"item": "tea"}) == "tea"


def test_a_name_given_to_a_partial_is_its_name() -> None:
    named = functools.partial(sell, count=1)
    named.__name__ = "sell_one"  # type: ignore[attr-defined]
    assert to_tool(named).name == "sell_one"
    assert tool(name="other")(named).name == "other"
    nameless = functools.partial(lambda text: text, "x")
    with pytest.raises(OptionError, match="pass name= for a lambda"):
        to_tool(nameless)


# --- results that are no JSON ----------------------------------------------------------------------------------------


class Loose(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    value: float = float("nan")


class Degrees(float):
    pass


NAN, INFINITY = float("nan"), float("inf")


def refuse(name: str) -> Any:
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("result", "plain"),
    [
        (NAN, None),
        (Degrees("-inf"), None),
        ({"a": [1, NAN, (INFINITY, -INFINITY)]}, {"a": [1, None, [None, None]]}),
        (Forecast(date(2026, 1, 2), NAN), {"day": "2026-01-02", "degrees": None}),
        ([Loose(), {"said": "NaN, Infinity"}], [{"value": None}, {"said": "NaN, Infinity"}]),
        ({"said": "NaN", "big": 2**70}, {"said": "NaN", "big": 2**70}),
        (Decimal("NaN"), "NaN"),
        ({"caf\udce9": ["\ud83d\ude00", "\udce9"]}, {"caf\ufffd": ["😀", "\ufffd"]}),
        (Place(city="\udce9"), {"city": "\ufffd", "country": "AT"}),
    ],
)
def test_whatever_a_tool_returns_a_strict_parser_can_read_it(result: Any, plain: Any) -> None:
    @tool
    def give() -> Any:
        return result

    text = call(give, {})
    text.encode()
    assert json.loads(text, parse_constant=refuse) == plain


@pytest.mark.parametrize("key", [NAN, INFINITY, Degrees("nan"), Decimal("NaN")])
def test_keys_that_are_no_numbers_are_texts(key: Any) -> None:
    @tool
    def give() -> Any:
        return {key: 1}

    assert list(json.loads(call(give, {}), parse_constant=refuse).values()) == [1]
