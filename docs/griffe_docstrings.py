"""A griffe extension for the API reference; `mkdocs.yml` names it.

It adapts what mkdocstrings shows to the conventions of the package:

- doctests become code blocks;
- names of documented objects become links;
- ``chat = create_chat_token_stream`` in a class is shown as a method;
- a msgspec struct is shown with its fields as constructor arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*(?:\n\S.*)*", re.MULTILINE)
QUOTED = re.compile(r"(?<!`)`([A-Za-z]\w*(?:\.\w+)?)`(?:\\ (?=\w))?(?!`)")  # with the escape in "`tool`\ s"
LISTED = re.compile(r"^::: (penstock\.(?:\w+\.)*(\w+))$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Called once by griffe, after the package has been read."""

    def on_package(self, *, pkg: griffe.Module, loader: Any, **_: Any) -> None:
        if pkg.name != "penstock":
            return
        classes = [one for one in objects_in(pkg) if isinstance(one, griffe.Class)]
        for cls in classes:
            add_fields(cls)
            add_aliases(cls)
        for cls in classes:
            if not cls.name.startswith("_"):
                cls.bases = [base for base in cls.bases if is_worth_showing(str(base))]
        anchors = anchors_of(pkg)
        for one in objects_in(pkg):
            if one.docstring is not None:
                one.docstring.value = as_markdown(one.docstring.value, anchors, one.name)


def anchors_of(pkg: griffe.Module) -> dict[str, str]:
    """The anchor on the page for each object that it shows, by ``Class`` and ``Class.member``."""
    page = Path(__file__).with_name("reference.md").read_text("utf-8")
    anchors = {}
    for path, name in LISTED.findall(page):
        anchors[name] = path
        for member in pkg[path.removeprefix("penstock.")].members.values():
            if member.has_docstring and member.is_public:
                anchors[f"{name}.{member.name}"] = f"{path}.{member.name}"
    return anchors


def as_markdown(text: str, anchors: dict[str, str], own_name: str) -> str:
    def link(match: re.Match[str]) -> str:
        name = match[1]
        anchor = anchors.get(name)
        return f"[`{name}`][{anchor}]" if anchor and name != own_name else f"`{name}`"

    parts = [QUOTED.sub(link, part) for part in DOCTEST.split(text)]
    tests = [f"```pycon\n{test}\n```" for test in DOCTEST.findall(text)]
    return "".join(part + test for part, test in zip(parts, [*tests, ""], strict=True))


def objects_in(parent: griffe.Object) -> Iterator[griffe.Object]:
    """Everything below ``parent`` that is defined there."""
    for member in list(parent.members.values()):
        if not member.is_alias:
            yield member
            yield from objects_in(member)


def is_worth_showing(base: str) -> bool:
    return not base.startswith("_") and base.split("[")[0] not in {"msgspec.Struct", "Generic", "Protocol"}


def add_fields(cls: griffe.Class) -> None:
    """Give a msgspec struct its constructor."""
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
    """The classes of the package that ``cls`` inherits from, the nearest first."""
    found: list[griffe.Class] = []
    for base in cls.resolved_bases:
        target = base.final_target if base.is_alias else base
        if isinstance(target, griffe.Class):
            found += [target, *ancestors(target)]
    return found


def add_aliases(cls: griffe.Class) -> None:
    """Show ``a = b`` as a method if ``b`` is a method or a function."""
    for name, member in list(cls.members.items()):
        if not isinstance(member, griffe.Attribute) or not isinstance(member.value, griffe.ExprName):
            continue
        target = cls.members.get(member.value.name) or cls.module.members.get(member.value.name)
        if target is not None and target.is_alias:
            try:
                target = cls.modules_collection[target.target_path]
            except KeyError:  # of a package that is not read, such as redis
                continue
        if isinstance(target, griffe.Function):
            copy = griffe.Function(name, parameters=target.parameters, returns=target.returns, parent=cls)
            if target.parent is cls:
                copy.docstring = griffe.Docstring(f"The same as `{cls.name}.{target.name}`.", parent=copy)
            elif target.docstring is not None:
                copy.docstring = griffe.Docstring(target.docstring.value, parent=copy)
            cls.set_member(name, copy)
