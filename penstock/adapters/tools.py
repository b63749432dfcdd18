"""Tools made from Python functions: the schema comes from signature and docstring, pydantic checks the arguments."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, overload

from penstock.config.checks import check_choice, check_number
from penstock.config.surrogates import mend_surrogates
from penstock.errors import OptionError, ToolArgumentsError, ToolError
from penstock.ports import Tool, ToolContext

# pydantic and docstring_parser are imported by the functions that use them, since most programs have no tools.
if TYPE_CHECKING:
    from docstring_parser import Docstring
    from pydantic import BaseModel, ValidationError

__all__ = ["FunctionTool", "check_names", "check_tools", "name_of", "to_tool", "tool"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHOWN_PROBLEMS: Final = 10
_NAMED_TYPES: Final = ("function", "custom")
_TYPES: Final = (*_NAMED_TYPES, "local_shell", "shell", "apply_patch", "computer", "mcp_approval", "tool_search")


class FunctionTool:
    """A Python function that a model may call; made by `tool`. Implements `Tool`, and is still callable itself."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        schema: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        needs_approval: bool = False,
        type: str = "function",
        format: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise OptionError("tool", builtins.type(function).__name__, "a function")
        import docstring_parser

        self.function = function
        check_choice("tool.type", type, _TYPES)
        if type != "function" and schema is not None:
            raise OptionError("tool.schema", builtins.type(schema).__name__, 'None, as the type is not "function"')
        if format is not None and (type != "custom" or not isinstance(format, Mapping)):
            raise OptionError("tool.format", builtins.type(format).__name__, 'a dict, for the type "custom" only')
        self.type = type
        self.format = format
        if name is None:
            name = _name_of(function) if type in _NAMED_TYPES else type
        self.name = _checked_name(name)
        check_number("timeout", timeout, 0.001, 86_400, optional=True)
        check_choice("needs_approval", needs_approval, (True, False))
        self.timeout = timeout
        self.needs_approval = needs_approval
        self._signature = _signature(function, self.name)
        self._context = _context_parameter(self._signature)
        docs = docstring_parser.parse(_docstring_of(function))
        self.description = description if description is not None else _description(docs)
        self._model: builtins.type[BaseModel] | None = None
        self._whole = None if type == "function" else _only_parameter(self.name, self._signature, self._context)
        if self._whole is not None:
            self.parameters: Mapping[str, Any] = {"type": "object", "properties": {}}
        elif schema is None:
            self._model = _model(self.name, self._signature, docs, self._context)
            self.parameters = _schema_of(self._model)
        else:
            self.parameters = _checked_schema(schema)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"FunctionTool({self.name})"

    def check(self, arguments: Any) -> Mapping[str, Any]:
        """Return the arguments as the function takes them: converted to its types, with its defaults.

        With ``schema=``, nothing is converted: they must only be an object that matches the function's parameters. The
        function of another ``type`` gets them whole.

        Raises:
            ToolArgumentsError: they do not match. The message is written for the model.
        """
        if self._whole is not None:
            return {self._whole: arguments}
        if not isinstance(arguments, Mapping):
            raise ToolArgumentsError(f"{self.name} takes a JSON object, not {_json_type(arguments)}")
        if self._model is None:
            self._check_binds(arguments)
            return dict(arguments)
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolArgumentsError(_explained(self.name, error)) from None
        values = {field.alias or key: getattr(checked, key) for key, field in self._model.model_fields.items()}
        return {name: value for name, value in values.items() if value is not _ABSENT}

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Call the function with what `check` returned. Its result becomes text: a str as it is, all else as JSON.

        In that JSON, NaN and infinity are ``null``.

        Raises:
            ToolError: the result cannot be encoded as JSON.
            asyncio.CancelledError: the function is async, and was cancelled.
            Exception: whatever the function raises.
        """
        keywords = dict(arguments)
        if self._context is not None:
            keywords[self._context] = context
        positional = [
            keywords.pop(parameter.name)
            for parameter in self._signature.parameters.values()
            if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in keywords
        ]
        result = self.function(*positional, **keywords)
        if inspect.isawaitable(result):
            run = context.run_coroutine
            result = _run_awaitable(result, context) if run is None else run(result)
        return _encode_result(self.name, result)

    def _check_binds(self, arguments: Mapping[str, Any]) -> None:
        missing = [name for name in self.parameters.get("required", ()) if name not in arguments]
        if missing:
            raise ToolArgumentsError(f"{self.name}: missing {', '.join(map(str, missing))}")
        extra = {self._context: None} if self._context is not None else {}
        try:
            self._signature.bind(**{**arguments, **extra})
        except TypeError as error:
            raise ToolArgumentsError(f"{self.name}: {error}") from None


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *,
    name: str | None = ...,
    description: str | None = ...,
    schema: Mapping[str, Any] | None = ...,
    timeout: float | None = ...,
    needs_approval: bool = ...,
    type: str = ...,
    format: Mapping[str, Any] | None = ...,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Decorate a function, plain or async, to make it a tool; with or without options in parentheses.

    The model sees the function's name (a partial has that of its function), the first paragraphs of its docstring, and
    a JSON schema of its parameters with the docstring's descriptions (in Google's, numpy's or Sphinx' form). A
    parameter annotated `ToolContext` is hidden from the model and receives the call's context.

    Args:
        function: what to call. Its parameters must be annotated with types that pydantic knows, or not at all.
        **options: ``name``; ``description``; ``schema``, a JSON schema that replaces the signature's; ``timeout`` in
            seconds, which replaces the agent's; ``needs_approval``: each call must be approved by the user; ``type``,
            the kind of calls that the tool runs (default ``"function"``), see `penstock.ToolCall`; ``format``, the
            grammar of a ``"custom"`` tool's input, as OpenAI takes it. The function of a ``"custom"`` tool has one
            parameter, which gets the model's text; that of ``"local_shell"``, ``"shell"``, ``"apply_patch"``,
            ``"computer"``, ``"mcp_approval"`` and ``"tool_search"`` has one that gets the action, as a dict.

    Raises:
        OptionError: the function has parameters that a model cannot pass (``*args``), or an option is not allowed.

    >>> @tool
    ... def add(a: int, b: int = 1) -> int:
    ...     '''Add two numbers.
    ...
    ...     Args:
    ...         a: the first one.
    ...     '''
    ...     return a + b
    >>> add.description, add.parameters["properties"]["a"], add.parameters["required"]
    ('Add two numbers.', {'description': 'the first one.', 'type': 'integer'}, ['a'])
    >>> add.check({"a": "3"})
    {'a': 3, 'b': 1}
    """
    if function is None:
        return lambda decorated: FunctionTool(decorated, **options)
    return FunctionTool(function, **options)


def to_tool(thing: Any) -> Tool:
    """Return a tool as it is; make one of a function, or of a pair of a schema and a function.

    The schema has OpenAI's form (``{"type": "function", "function": {"name": …, "parameters": …}}``, or the inner
    object).

    Raises:
        OptionError: it is none of these.
    """
    if isinstance(thing, FunctionTool):
        return thing
    if all(hasattr(thing, name) for name in ("name", "description", "parameters", "check", "run")):
        own: Tool = thing
        _checked_name(own.name)
        return own
    if isinstance(thing, tuple) and len(thing) == 2 and isinstance(thing[0], Mapping):
        schema, function = thing
        kind = schema.get("type", "function")
        if kind in _TYPES and kind not in _NAMED_TYPES:
            return FunctionTool(function, type=kind)
        inner = schema.get(str(kind), schema)
        if isinstance(inner, Mapping) and "name" in inner and kind == "custom":
            return FunctionTool(
                function,
                name=inner["name"],
                description=str(inner.get("description") or ""),
                type="custom",
                format=inner.get("format"),
            )
        if isinstance(inner, Mapping) and "name" in inner:
            return FunctionTool(
                function,
                name=inner["name"],
                description=str(inner.get("description") or ""),
                schema=inner.get("parameters") or {"type": "object", "properties": {}},
            )
        raise OptionError("tools", sorted(map(str, schema)), "a schema with a name, paired with a function")
    if callable(thing):
        return FunctionTool(thing)
    raise OptionError("tools", type(thing).__name__, "functions, tools, or pairs of a schema and a function")


def check_tools(things: object) -> Iterable[Any]:
    """Raise `OptionError` unless this is an iterable of tools; each of them is checked by `to_tool`."""
    if isinstance(things, (str, bytes, Mapping)) or not isinstance(things, Iterable):
        raise OptionError("tools", type(things).__name__, "a list of functions and tools")
    return things


def name_of(form: object) -> str | None:
    """Return the name in a tool's description, in OpenAI's form or a provider's own; None: it has none."""
    inner = form.get("function", form.get("custom", form)) if isinstance(form, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def check_names(names: Iterable[object]) -> None:
    """Raise `OptionError` if two tools of one request have the same name. None is a tool without a name."""
    seen: set[object] = set()
    for name in names:
        if name is not None and name in seen:
            raise OptionError("tools", name, "tools of different names", problem=f"two tools are named {name!r}")
        seen.add(name)


def _encode_result(name: str, result: Any) -> str:
    """Encode a tool's result as text for the model.

    Raises:
        ToolError: it cannot be encoded as JSON.
    """
    if isinstance(result, str):
        return result
    from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

    try:
        try:
            text = to_json(result).decode()
        except PydanticSerializationError:  # lone surrogates? Anything else fails again
            text = to_json(mend_surrogates(to_jsonable_python(mend_surrogates(result)))).decode()
        if "NaN" in text or "Infinity" in text:  # perhaps in a text
            constants: list[str] = []
            strict = json.loads(text, parse_constant=constants.append)  # with None for each
            text = to_json(strict).decode() if constants else text
        return text
    except (PydanticSerializationError, ValueError, RecursionError):  # its message may contain the result
        kind = type(result).__name__
        raise ToolError(f"{name} returned a result that cannot be encoded as JSON ({kind})") from None


# --- from a signature to a schema ------------------------------------------------------------------------------------


class _Absent:
    """Stands for a parameter that was not passed and has a default that is not JSON; the function then applies it."""

    def __repr__(self) -> str:
        return "…"


_ABSENT: Final = _Absent()


@cache
def _schema_generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Schema(GenerateJsonSchema):
        def field_title_should_be_set(self, schema: Any) -> bool:
            return False  # a title such as "Arg 0" means nothing to a model

    return Schema


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError("tool.name", name, "1 to 64 letters, digits, _ and - (pass name= for a lambda)")
    return name


def _unwrapped(function: Any) -> Any:
    """Return the function within a partial, or within a partial of a partial."""
    while isinstance(function, partial):
        function = function.func
    return function


def _name_of(function: Any) -> str:
    own = getattr(function, "__name__", None)  # a partial has one only if it was given one
    if isinstance(own, str):
        return own
    inner = _unwrapped(function)
    name: str = getattr(inner, "__name__", type(inner).__name__)
    return name


def _docstring_of(function: Any) -> str:
    """Return the docstring; for a partial that was given none, that of its function instead of that of `partial`."""
    is_bare = isinstance(function, partial) and "__doc__" not in vars(function)
    return inspect.getdoc(_unwrapped(function) if is_bare else function) or ""


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        message = f"tool {name}: Python cannot determine the function's signature. Pass schema=."
        raise OptionError("tool", name, "a function with a known signature", message=message) from None
    try:
        hints = typing.get_type_hints(_hinted(function), include_extras=True)
    except Exception as error:
        message = f"tool {name}: the function's annotations cannot be resolved: {error}"
        raise OptionError("tool", name, "a function whose annotations can be resolved", message=message) from None
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


def _hinted(function: Callable[..., Any]) -> Any:
    """Return the object with the annotations: the function, a partial's function, or the class's ``__call__``."""
    inner = _unwrapped(function)
    return inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner).__call__


def _context_parameter(signature: inspect.Signature) -> str | None:
    parameters = signature.parameters.items()
    return next((name for name, parameter in parameters if parameter.annotation is ToolContext), None)


def _only_parameter(name: str, signature: inspect.Signature, context: str | None) -> str:
    """The name of the parameter that gets the whole arguments."""
    names = [each for each in signature.parameters if each != context]
    if len(names) != 1:
        message = f"tool {name}: a tool of this type gets one value; its function has {len(names)} parameters"
        raise OptionError(f"tool {name}", len(names), "a function with one parameter", message=message)
    return names[0]


def _description(docs: Docstring) -> str:
    return "\n\n".join(text.strip() for text in (docs.short_description, docs.long_description) if text)


def _model(name: str, signature: inspect.Signature, docs: Docstring, context: str | None) -> type[BaseModel]:
    from pydantic import ConfigDict, Field, PydanticUserError, create_model

    descriptions = {param.arg_name.lstrip("*"): (param.description or "").strip() for param in docs.params}
    fields: dict[str, Any] = {}
    for place, parameter in enumerate(signature.parameters.values()):
        if parameter.name == context:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            message = f"tool {name}: a model cannot pass {parameter}. Name each parameter, or pass schema=."
            raise OptionError(f"tool {name}", str(parameter), "parameters with names of their own", message=message)
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        # Under other names, since parameters may be called like pydantic's own methods (`json`, `copy`, `schema` …).
        options: dict[str, Any] = {"alias": parameter.name}
        if text := descriptions.get(parameter.name):
            options["description"] = text
        if parameter.default is parameter.empty:
            fields[f"arg_{place}"] = (annotation, Field(**options))
        elif _is_json(parameter.default):
            fields[f"arg_{place}"] = (annotation, Field(parameter.default, **options))
        else:
            fields[f"arg_{place}"] = (annotation, Field(default_factory=lambda: _ABSENT, **options))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    try:
        model: type[BaseModel] = create_model(name, __config__=config, **fields)
        _schema_of(model)
    except PydanticUserError as error:
        first = str(error).partition("\n")[0]
        message = f"tool {name}: an annotation is not a type that JSON can carry. Pass schema=. ({first})"
        raise OptionError(f"tool {name}", "annotations", "types that JSON can carry", message=message) from None
    return model


def _is_json(value: object) -> bool:
    from pydantic_core import PydanticSerializationError, to_json

    try:
        to_json(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return False
    return True


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=_schema_generator())
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema


def _checked_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise OptionError("tool.schema", type(schema).__name__, 'a JSON schema of type "object"')
    return {"type": "object", "properties": {}, **schema}


# --- running ---------------------------------------------------------------------------------------------------------


def _run_awaitable(awaitable: Any, context: ToolContext) -> Any:
    """Run an awaitable on a new event loop in this thread until it is done or cancelled."""

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(awaitable)

        def cancel() -> None:
            with contextlib.suppress(RuntimeError):  # already done, and the loop is closed
                loop.call_soon_threadsafe(task.cancel)

        context.on_cancel(cancel)
        return await task

    return asyncio.run(run())


def _explained(name: str, error: ValidationError) -> str:
    """Describe for the model where the arguments are wrong and why, without the values, which it knows."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = problems[:_SHOWN_PROBLEMS]
    lines = [f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in shown]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
    return f"{name}: wrong arguments; " + "; ".join(lines)


def _json_type(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
