"""Read the moves of a state machine from its code, without running it.

`Reader` runs the state methods on paper: for each state and each event, every path that the code may take, through
the methods that it calls. What reading does not know (a length, the time, another object) goes both ways. So it finds
every move that there is, and may find moves that never happen; the moves that do happen are recorded, see `recording`.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.statetable import END, START
from penstock.actors.runtime.transitions import Internal, Keep, NamedTimeout, Next, Repeat, StateTimeout, Stop, timeout
from tests.diagrams.values import (
    CARRIERS,
    NONE,
    OBJECT,
    UNKNOWN,
    Const,
    Env,
    Goto,
    Incoming,
    Some,
    Value,
    all_of,
    any_of,
    attribute,
    equal,
    is_a,
    label,
    truth,
)

__all__ = ["Found", "Reader"]

Found: TypeAlias = tuple[str, str, str]  # from state, event, to state
_ROUNDS: Final = 2  # how often the body of a loop is read
_DEPTH: Final = 2  # how often a method may be on the way to itself


Evaluated: TypeAlias = Iterable[tuple[Value, Env]]


class Flow:
    """Where the paths through some statements lead."""

    def __init__(self, on: Iterable[Env] = ()) -> None:
        self.on = set(on)
        self.returned: set[tuple[Value, Env]] = set()
        self.broken: set[Env] = set()
        self.continued: set[Env] = set()

    def leave_by(self, other: Flow, *, loop: bool = True) -> None:
        """Take over how ``other`` is left early."""
        self.returned |= other.returned
        if loop:
            self.broken |= other.broken
            self.continued |= other.continued


class Method(NamedTuple):
    """A method, its class, and the names that its module knows."""

    node: ast.FunctionDef
    owner: type
    names: Mapping[str, Any]


class Reading(NamedTuple):
    """What a call may lead to, and the attributes that this depends on."""

    results: set[tuple[Value, Env]]
    looked_at: set[str]


class Reader:
    """Reads one class.

    Args:
        machine: the class.
        keep: attributes such as ``self._attempt`` to be kept in mind from one event to the next.
        follow: which class's method is meant when a method of that name is called on another object; methods of other
            objects that are not listed are not read.
        cell: the state is not ``self._state`` but this attribute, such as ``call.state``, and a move is what is
            assigned to it.
    """

    def __init__(
        self,
        machine: type,
        *,
        follow: Mapping[str, type] | None = None,
        keep: Iterable[str] = (),
        cell: str = "self._state",
    ) -> None:
        self.cell = cell
        self.keep = frozenset(keep)
        self.machine = machine
        self.follow = follow or {}
        self.methods = {owner: _methods(owner) for owner in {machine: None, **dict.fromkeys(self.follow.values())}}
        self.domains: dict[str, set[Value]] = {}  # of the machine's own attributes: everything they are set to
        self.read: dict[Any, Reading] = {}  # the calls that have been read
        self.looked_at: set[str] = set()  # attributes, in the method that is being read
        self.stack: list[Method] = []
        self.is_last = True  # whether nothing is done after the method that is being read
        self.assigned: set[str] = set()  # to the cell, in the run under way
        self.start = ""  # the cell's state in the run under way

    # --- what is asked of it -----------------------------------------------------------------------------------------

    def machine_moves(self) -> set[Found]:
        """The moves of a `StateMachine`; an event that leads back into its own state is none."""
        while True:
            known = {name: set(values) for name, values in self.domains.items()}
            found: set[Found] = set()
            seen: set[tuple[str, Env]] = set()
            new = {(START, Env())}
            while new - seen:
                state, kept = min(new - seen, key=repr)
                seen.add((state, kept))
                for event in self.events() if state != START else (None,):
                    ends = self._results(*(("init", state, []) if event is None else (state, state, [event])), kept)
                    found |= {(state, "start" if event is None else label(event), target) for target, _ in ends}
                    new |= {(target, after) for target, after in ends if target != END}
            changed = {name for name, values in self.domains.items() if values != known.get(name)}
            self.read = {call: one for call, one in self.read.items() if one.looked_at.isdisjoint(changed)}
            if not changed:
                return {(source, event, target) for source, event, target in found if source != target}

    def cell_moves(self, entry: str, states: Iterable[str]) -> set[Found]:
        """The moves that ``entry`` makes of the cell in each of ``states``, by event if it takes one."""
        takes_event = "event" in {argument.arg for argument in self.methods[self.machine][entry].node.args.args}
        found = set()
        for state in states:
            for event in self.events() if takes_event else (None,):
                self.read.clear()
                self._results(entry, state, [UNKNOWN if event is None else event], Env())
                name = entry if event is None else label(event)
                found |= {(state, name, target) for target in self.assigned if target != state}
        return found

    def events(self) -> list[Value]:
        """Every event that the code knows, in the order of their labels."""
        found: dict[str, set[Value]] = {}
        for methods in self.methods.values():
            for method in methods.values():
                for event in _events_in(method):
                    found.setdefault(label(event), set()).add(event)
        return [event for name in sorted(found) for event in sorted(found[name], key=repr)]

    # --- methods -----------------------------------------------------------------------------------------------------

    def _results(self, name: str, state: str, arguments: list[Value], kept: Env) -> set[tuple[str, Env]]:
        """The states that a method may lead to, and what is kept in mind then."""
        self.start, self.assigned = state, set()
        env = kept.put({self.cell: NONE if state == START else Const(state)})
        results = self._enter(self.methods[self.machine][name], arguments, {}, env, is_last=True)
        return {(self._target(value, state), after) for value, after in results}

    def _target(self, value: Value, state: str) -> str:
        match value:
            case Goto(state=Const(value=str(target))) | Const(value=str(target)):
                return target
            case Goto(state=None) | Const() | Some():
                return state
        raise NotImplementedError(f"a transition that cannot be read: {value}")

    def _enter(
        self, method: Method, arguments: list[Value], named: dict[str, Value], env: Env, *, is_last: bool = False
    ) -> Evaluated:
        """Read a call of a method: what it may return, and what is known of ``self`` then."""
        if self.stack.count(method) >= _DEPTH:
            return []
        spec = method.node.args
        plain = [argument.arg for argument in spec.args[1:]]
        given: dict[str, Value] = dict.fromkeys([*plain, *(argument.arg for argument in spec.kwonlyargs)], UNKNOWN)
        given.update(zip(plain, arguments, strict=False))
        given.update({name: value for name, value in named.items() if name in given})
        if spec.vararg:
            given[spec.vararg.arg] = UNKNOWN
        begin = (env.attributes() if self._is_own_method(method) else env.only(self.cell)).put(given)
        key = (method.node, begin, is_last, frozenset(method.node for method in self.stack))
        if key not in self.read:
            before = self.is_last, self.looked_at
            self.is_last, self.looked_at = is_last, set()
            self.stack.append(method)
            flow = self._run(method.node.body, {begin})
            self.stack.pop()
            ends = [*flow.returned, *((NONE, after) for after in flow.on)]
            results = {(value, after.only(*self.keep) if is_last else after.attributes()) for value, after in ends}
            self.read[key] = Reading(results, self.looked_at)
            self.is_last, self.looked_at = before
        results, looked_at = self.read[key]
        self.looked_at |= looked_at
        if self._is_own_method(method):
            return results
        return {(value, env.put(after.only(self.cell))) for value, after in results}

    def _is_own_method(self, method: Method) -> bool:
        """Whether its ``self`` is the one of the method that is being read."""
        return not self.stack or method.owner is self.stack[-1].owner

    # --- statements --------------------------------------------------------------------------------------------------

    def _run(self, body: Iterable[ast.stmt], envs: Iterable[Env]) -> Flow:
        flow = Flow(envs)
        for statement in body:
            step = Flow()
            for env in flow.on:
                one = self._step(statement, env)
                step.on |= one.on
                step.leave_by(one)
            flow.on = step.on
            flow.leave_by(step)
        return flow

    def _step(self, node: ast.stmt, env: Env) -> Flow:
        match node:
            case ast.Return(value=value):
                flow = Flow()
                if isinstance(value, ast.Call):
                    flow.returned = set(self._eval_call(value, env, is_last=self.is_last))
                else:
                    flow.returned = set(self._eval(value, env)) if value is not None else {(NONE, env)}
                return flow
            case ast.If(test=test, body=body, orelse=orelse):
                return self._if(test, body, orelse, env)
            case ast.Match():
                return self._match(node, env)
            case ast.For(target=target):
                return self._loop(lambda at: [(True, self._assign(target, UNKNOWN, at)), (False, at)], node, env)
            case ast.While(test=test):
                return self._loop(lambda at: self._branch(test, at), node, env)
            case ast.With(items=items, body=body):
                return self._run(body, {self._assign(item.optional_vars, OBJECT, env) for item in items})
            case ast.Try():
                return self._try(node, env)
            case ast.Assign(targets=targets, value=value):
                return Flow(self._assign_all(targets, value, env))
            case ast.AnnAssign(target=target, value=value) if value is not None:
                return Flow(self._assign_all([target], value, env))
            case ast.AugAssign(target=target, value=value):
                return Flow(self._assign(target, UNKNOWN, after) for _, after in self._eval(value, env))
            case ast.Expr(value=value):
                return Flow(after for _, after in self._eval(value, env))
            case ast.Assert(test=test):
                return Flow(after for holds, after in self._branch(test, env) if holds)
            case ast.FunctionDef(name=name):
                return Flow([env.put({name: OBJECT})])
            case ast.Raise():
                return Flow()
            case ast.Break() | ast.Continue():
                flow = Flow()
                (flow.broken if isinstance(node, ast.Break) else flow.continued).add(env)
                return flow
            case ast.Pass() | ast.Delete() | ast.AnnAssign():
                return Flow([env])
        raise NotImplementedError(ast.unparse(node))

    def _if(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], env: Env) -> Flow:
        flow = Flow()
        for holds, after in self._branch(test, env):
            way = self._run(body if holds else orelse, {after})
            flow.on |= way.on
            flow.leave_by(way)
        return flow

    def _loop(self, begin: Callable[[Env], Iterable[tuple[bool, Env]]], node: ast.For | ast.While, env: Env) -> Flow:
        flow, envs, done = Flow(), {env}, set[Env]()
        for number in range(_ROUNDS + 1):
            again: set[Env] = set()
            for at in envs:
                for goes_on, after in begin(at):
                    if not goes_on:
                        done.add(after)
                    elif number < _ROUNDS:
                        way = self._run(node.body, {after})
                        flow.leave_by(way, loop=False)
                        flow.on |= way.broken
                        again |= way.on | way.continued
            envs = again
        last = self._run(node.orelse, done)
        flow.on |= last.on
        flow.leave_by(last)
        return flow

    def _try(self, node: ast.Try, env: Env) -> Flow:
        flow = self._run([*node.body, *node.orelse], {env})
        for handler in node.handlers:
            at = env if handler.name is None else env.put({handler.name: OBJECT})
            way = self._run(handler.body, {at})
            flow.on |= way.on
            flow.leave_by(way)
        last = self._run(node.finalbody, flow.on)
        flow.on = last.on
        flow.leave_by(last)
        return flow

    def _match(self, node: ast.Match, env: Env) -> Flow:
        flow = Flow()
        for subject, start in self._eval(node.subject, env):
            undecided = {start}
            for case in node.cases:
                rest: set[Env] = set()
                for at in undecided:
                    fits = self._fits(case.pattern, subject)
                    if fits is not True:
                        rest.add(at)
                    if fits is False:
                        continue
                    at = at.put(dict.fromkeys(_captured(case.pattern), UNKNOWN))
                    if isinstance(case.pattern, ast.MatchAs) and case.pattern.name is not None:
                        at = at.put({case.pattern.name: subject})
                    for holds, after in self._branch(case.guard, at) if case.guard else [(True, at)]:
                        if not holds:
                            rest.add(after)
                            continue
                        way = self._run(case.body, {after})
                        flow.on |= way.on
                        flow.leave_by(way)
                undecided = rest
            flow.on |= undecided
        return flow

    def _fits(self, pattern: ast.pattern, value: Value) -> bool | None:
        match pattern:
            case ast.MatchAs(pattern=None):
                return True
            case ast.MatchAs(pattern=inner) if inner is not None:
                return self._fits(inner, value)
            case ast.MatchOr(patterns=patterns):
                return any_of(self._fits(one, value) for one in patterns)
            case ast.MatchClass(cls=cls, kwd_attrs=names, kwd_patterns=patterns):
                fits = is_a(value, self._known(cls))
                if fits is False:
                    return False
                parts = [self._fits(one, attribute(value, name)) for name, one in zip(names, patterns, strict=True)]
                return all_of([fits, *parts])
            case ast.MatchValue(value=ast.Constant(value=known)):
                return value.value == known if isinstance(value, Const) else None
        return None

    # --- expressions -------------------------------------------------------------------------------------------------

    def _eval(self, node: ast.expr, env: Env) -> Evaluated:
        match node:
            case ast.Constant(value=value):
                return [(Const(value), env)]
            case ast.Name(id=name):
                if name in env:
                    return [(env[name], env)]
                return [(Const(self._names[name]) if name in self._names else UNKNOWN, env)]
            case ast.Attribute():
                return self._eval_attribute(node, env)
            case ast.Call():
                return self._eval_call(node, env)
            case ast.NamedExpr(target=target, value=value):
                return [(got, self._assign(target, got, after)) for got, after in self._eval(value, env)]
            case ast.IfExp(test=test, body=body, orelse=orelse):
                ways = self._branch(test, env)
                return [one for holds, after in ways for one in self._eval(body if holds else orelse, after)]
            case ast.BoolOp(op=op, values=values):
                return self._eval_bool(isinstance(op, ast.Or), values, env)
            case ast.Compare() | ast.UnaryOp(op=ast.Not()):
                return [(Const(holds), after) for holds, after in self._branch(node, env)]
            case ast.Tuple(elts=parts):
                return [
                    (Const(tuple(one.value for one in values if isinstance(one, Const)))
                     if all(isinstance(one, Const) for one in values) else OBJECT, after)
                    for values, after in self._eval_each(parts, env)
                ]  # fmt: skip
            case ast.List() | ast.Dict() | ast.ListComp() | ast.JoinedStr() | ast.Lambda():
                return [(OBJECT, env)]
            case ast.Starred(value=value):
                return [(UNKNOWN, after) for _, after in self._eval(value, env)]
        return [(UNKNOWN, env)]

    def _eval_each(self, nodes: Iterable[ast.expr], env: Env) -> Iterable[tuple[list[Value], Env]]:
        ways: list[tuple[list[Value], Env]] = [([], env)]
        for node in nodes:
            ways = [([*values, got], after) for values, at in ways for got, after in self._eval(node, at)]
        return ways

    def _eval_bool(self, stops_when: bool, values: list[ast.expr], env: Env) -> Evaluated:
        first, *rest = values
        if not rest:
            yield from self._eval(first, env)
            return
        for value, at in self._eval(first, env):
            holds = truth(value)
            if holds is None or holds is stops_when:
                yield (value if holds is not None else Some(truth=stops_when)), at
            if holds is not stops_when:
                yield from self._eval_bool(stops_when, rest, at)

    def _eval_attribute(self, node: ast.Attribute, env: Env) -> Evaluated:
        name = _text(node)
        if name in env:
            return [(env[name], env)]
        if name.startswith("self.") and name.count(".") == 1:
            self.looked_at.add(name)
            domain = self.domains.get(name) if self._is_read_as_machine() else None
            if domain and UNKNOWN not in domain:  # all that it ever is
                return [(value, env.put({name: value})) for value in sorted(domain, key=repr)]
            return [(UNKNOWN, env)]
        return [(attribute(value, node.attr), after) for value, after in self._eval(node.value, env)]

    def _eval_call(self, node: ast.Call, env: Env, *, is_last: bool = False) -> Evaluated:
        keywords = [keyword.arg or "**" for keyword in node.keywords]
        method = self._method_of(node.func)
        results: list[tuple[Value, Env]] = []
        for values, at in self._eval_each([*node.args, *(keyword.value for keyword in node.keywords)], env):
            plain, named = values[: len(node.args)], dict(zip(keywords, values[len(node.args) :], strict=True))
            if method is not None:
                ways = self._enter(method, plain, named, at, is_last=is_last)
                results += [(got, at.put(after)) for got, after in ways]
            else:
                results += [(self._made(function, plain), after) for function, after in self._eval(node.func, at)]
        return results

    def _method_of(self, function: ast.expr) -> Method | None:
        """The method that a call is followed into."""
        if not isinstance(function, ast.Attribute):
            return None
        owner = self.follow.get(function.attr)
        if isinstance(function.value, ast.Name) and function.value.id == "self":
            owner = self.stack[-1].owner
        return self.methods[owner].get(function.attr) if owner is not None else None

    def _made(self, function: Value, arguments: list[Value]) -> Value:
        """What a call that is not followed gives."""
        made = function.value if isinstance(function, Const) else None
        if made is Next:
            return Goto(Next, arguments[0])
        if made is Keep or made is Repeat:
            return Goto(made, None)
        if made is Stop:
            return Goto(Stop, Const(END))
        if made is isinstance:
            kinds = arguments[1].value if isinstance(arguments[1], Const) else None
            fits = is_a(arguments[0], kinds)
            return UNKNOWN if fits is None else Const(fits)
        return OBJECT if isinstance(made, type) else UNKNOWN

    def _known(self, node: ast.expr) -> Any:
        return self._names[node.id] if isinstance(node, ast.Name) else None

    def _is_read_as_machine(self) -> bool:
        return self.cell == "self._state" and self.stack[-1].owner is self.machine

    def _default(self, name: str) -> set[Value]:
        """What an attribute is before it is set."""
        attribute = name.removeprefix("self.")
        return {Const(getattr(self.machine, attribute))} if hasattr(self.machine, attribute) else set()

    @property
    def _names(self) -> Mapping[str, Any]:
        return self.stack[-1].names

    # --- conditions --------------------------------------------------------------------------------------------------

    def _branch(self, node: ast.expr, env: Env) -> Iterable[tuple[bool, Env]]:
        """Both ways that a condition may go, with what is known then."""
        match node:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return [(not holds, after) for holds, after in self._branch(operand, env)]
            case ast.BoolOp(op=op, values=values):
                return set(self._branch_bool(isinstance(op, ast.Or), values, env))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return [one for pair, at in self._eval_each([left, right], env)
                        for one in self._compare(left, pair[0], op, pair[1], at)]  # fmt: skip
        return [one for value, at in self._eval(node, env)
                for one in self._both(node, truth(value), at, Some(True, False), Some(False))]  # fmt: skip

    def _branch_bool(self, stops_when: bool, values: list[ast.expr], env: Env) -> Iterator[tuple[bool, Env]]:
        first, *rest = values
        for holds, at in self._branch(first, env):
            if holds is stops_when or not rest:
                yield holds, at
            else:
                yield from self._branch_bool(stops_when, rest, at)

    def _compare(self, node: ast.expr, one: Value, op: ast.cmpop, other: Value, env: Env) -> Iterable[tuple[bool, Env]]:
        negated = isinstance(op, (ast.IsNot, ast.NotEq, ast.NotIn))
        known = equal(one, op, other)
        if isinstance(op, (ast.Is, ast.IsNot)) and other == NONE:
            ways = self._both(node, known, env, NONE, OBJECT)
        else:
            ways = self._both(node, known, env, None, None)
        return [(holds is not negated, after) for holds, after in ways]

    def _both(
        self, node: ast.expr, known: bool | None, env: Env, if_so: Value | None, if_not: Value | None
    ) -> Iterable[tuple[bool, Env]]:
        if known is not None:
            return [(known, env)]
        name = _text(node.target if isinstance(node, ast.NamedExpr) else node)
        if if_so is None or if_not is None or not (name.isidentifier() or _is_own(name)):
            return [(True, env), (False, env)]
        return [(True, env.put({name: if_so})), (False, env.put({name: if_not}))]

    # --- assignments -------------------------------------------------------------------------------------------------

    def _assign_all(self, targets: list[ast.expr], value: ast.expr, env: Env) -> Iterable[Env]:
        match targets, value:
            case [ast.Tuple(elts=names)], ast.Tuple(elts=values):
                for got, after in self._eval_each(values, env):
                    for name, one in zip(names, got, strict=True):
                        after = self._assign(name, one, after)
                    yield after
                return
        for one, after in self._eval(value, env):
            for target in targets:
                after = self._assign(target, one, after)
            yield after

    def _assign(self, target: ast.expr | None, value: Value, env: Env) -> Env:
        if target is None:
            return env
        if isinstance(target, ast.Tuple):
            for one in target.elts:
                env = self._assign(one, UNKNOWN, env)
            return env
        name = _text(target)
        if name == self.cell:
            if isinstance(value, Const):
                self.assigned.add(value.value)
        elif _is_own(name):
            if self._is_read_as_machine():
                self.domains.setdefault(name, self._default(name)).add(value)
        elif name == self.cell.partition(".")[0]:  # another object, in the state that this run is about
            env = env.put({self.cell: Const(self.start)})
        return env.put({name: value}) if name.isidentifier() or _is_own(name) or name == self.cell else env


def _methods(owner: type) -> dict[str, Method]:
    """The methods of a class and of those that it is made of, but not of `StateMachine`."""
    found: dict[str, Method] = {}
    above = set(StateMachine.__mro__)
    for cls in reversed([cls for cls in owner.__mro__ if cls not in above]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        names = {**vars(builtins), **vars(sys.modules[cls.__module__])}
        for node in tree.body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.FunctionDef):
                found[node.name] = Method(node, owner, names)
    return found


def _events_in(method: Method) -> Iterator[Value]:
    """The events that a method names."""
    for node in ast.walk(method.node):
        match node:
            case ast.Name(id=name) if isinstance(method.names.get(name), Internal):
                yield Const(method.names[name])
            case ast.Name(id=name) if method.names.get(name) is StateTimeout:
                yield Incoming(StateTimeout)
            case ast.MatchClass(cls=ast.Name(id=name), kwd_patterns=[pattern, *_]) if name in method.names:
                kind = method.names[name]
                if kind in CARRIERS:
                    for one in ast.walk(pattern):
                        if isinstance(one, ast.MatchClass) and isinstance(one.cls, ast.Name):
                            yield Incoming(kind, method.names[one.cls.id])
            case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=first), *_]) if method.names.get(name) is timeout:
                known = method.names.get(first)
                yield Incoming(NamedTimeout, known if isinstance(known, str) else None)


def _captured(pattern: ast.pattern) -> Iterator[str]:
    for node in ast.walk(pattern):
        if isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name is not None:
            yield node.name


@cache
def _text(node: ast.expr) -> str:
    return ast.unparse(node)


def _is_own(name: str) -> bool:
    return name.startswith("self.") and name.removeprefix("self.").isidentifier()
