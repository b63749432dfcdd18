"""What mkdocstrings needs to know of our docstrings and classes; mkdocs.yml names this file.

Doctests become blocks of code, names of documented objects become links, ``chat = create_chat_token_stream`` is shown
as the method it is, and a msgspec struct is shown with its fields as its constructor takes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*(?:\n\S.*)*", re.MULTILINE)
QUOTED = re.compile(r"(?<!`)`([A-Za-z]\w*(?:\.\w+)?)`(?:\\ (?=\w))?(?!`)")
LISTED = re.compile(r"^::: (penstock\.(?:\w+\.)*(\w+))$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Runs once, when the package has been read."""

    def __init__(self) -> None:
        page = Path(__file__).with_name("reference.md").read_text("utf-8")
        self._paths = {name: path for path, name in LISTED.findall(page)}

    def on_package(self, *, pkg: griffe.Module, loader: Any, **_: Any) -> None:
        """Called by griffe."""
        if pkg.name != "penstock":
            return
        classes = [one for one in objects_in(pkg) if isinstance(one, griffe.Class)]
        for cls in classes:
            add_fields(cls)
            add_aliases(cls)
        for cls in classes:
            if not cls.name.startswith("_"):
                cls.bases = [base for base in cls.bases if is_worth_showing(str(base))]
        for one in objects_in(pkg):
            if one.docstring is not None:
                one.docstring.value = self._as_markdown(one.docstring.value, one)

    def _as_markdown(self, text: str, where: griffe.Object) -> str:
        def link(match: re.Match[str]) -> str:
            name, _, member = match[1].partition(".")
            path = self._paths.get(name)
            if path is None or where.name == name:
                return f"`{match[1]}`"
            target = f"{path}.{member}" if member else path
            return f"[`{match[1]}`][{target}]"

        def block(match: re.Match[str]) -> str:
            return f"```pycon\n{match[0]}\n```"

        parts = DOCTEST.split(text)
        tests = [block(match) for match in DOCTEST.finditer(text)]
        linked = [QUOTED.sub(link, part) for part in parts]
        return "".join(part + test for part, test in zip(linked, [*tests, ""], strict=True))


def objects_in(parent: griffe.Object) -> Iterator[griffe.Object]:
    """Everything below ``parent`` that is defined there."""
    for member in list(parent.members.values()):
        if not member.is_alias:
            yield member
            yield from objects_in(member)


def is_worth_showing(base: str) -> bool:
    return not base.startswith("_") and base.split("[")[0] not in {"msgspec.Struct", "Generic", "Protocol"}


def add_fields(cls: griffe.Class) -> None:
    """Give a struct the constructor that msgspec gives it."""
    family = [cls, *ancestors(cls)]
    if not any(str(base) == "msgspec.Struct" for one in family for base in one.bases) or "__init__" in cls.members:
        return
    fields: dict[str, griffe.Parameter] = {}
    for one in reversed(family):
        keyword_only = "kw_only" in one.keywords
        for name, member in one.members.items():
            if isinstance(member, griffe.Attribute) and member.annotation is not None and not name.startswith("_"):
                kind = griffe.ParameterKind.keyword_only if keyword_only else griffe.ParameterKind.positional_or_keyword
                fields[name] = griffe.Parameter(name, annotation=member.annotation, kind=kind, default=member.value)
    first = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    parameters = griffe.Parameters(first, *sorted(fields.values(), key=lambda one: one.kind.value == "keyword-only"))
    cls.set_member("__init__", griffe.Function("__init__", parameters=parameters, parent=cls))


def ancestors(cls: griffe.Class) -> list[griffe.Class]:
    """The classes of ours that ``cls`` inherits from, the nearest first."""
    found: list[griffe.Class] = []
    for base in cls.resolved_bases:
        target = base.final_target if base.is_alias else base
        if isinstance(target, griffe.Class):
            found += [target, *ancestors(target)]
    return found


def add_aliases(cls: griffe.Class) -> None:
    """Show ``a = b`` as a method, where ``b`` is one, or a function."""
    for name, member in list(cls.members.items()):
        if not isinstance(member, griffe.Attribute) or not isinstance(member.value, griffe.ExprName):
            continue
        target = cls.members.get(member.value.name) or cls.module.members.get(member.value.name)
        if target is not None and target.is_alias:
            target = cls.modules_collection[target.target_path]
        if isinstance(target, griffe.Function):
            copy = griffe.Function(name, parameters=target.parameters, returns=target.returns, parent=cls)
            if target.parent is cls:
                copy.docstring = griffe.Docstring(f"The same as `{cls.name}.{target.name}`.", parent=copy)
            elif target.docstring is not None:
                copy.docstring = griffe.Docstring(target.docstring.value, parent=copy)
            cls.set_member(name, copy)
