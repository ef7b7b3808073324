"""What a run is: all that its numbers depend on, by name, told alike in every process and on every device."""

from __future__ import annotations

import copyreg
import dis
import hashlib
import sys
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from ebmm.tasks import LazyImages

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
MOST = 40  # elements of a list, or characters of a text, beyond which a digest stands for them
OF_EVERY_MODULE = vars(nn.Module()).keys()
HOOKS = [f"_{when}_hooks" for when in ("forward_pre", "forward", "backward_pre", "backward", "post_accumulate_grad")]
NO_NUMBERS = {"__init__", "__post_init__", "__repr__", "__str__", "__eq__", "__hash__", "__setattr__", "__delattr__"}


def identity_of(**things: object) -> dict[str, str]:
    """What is in the things named: a text for each name, with digests for tensors, code and long lists.

    Settings and data count, functions with all that they refer to, and the code of the user's own classes; of a
    model not the values of its parameters, since training changes them. What an object's ``__getstate__`` leaves
    out does not count, nor what Python cannot pickle, such as locks.

    Example:
        >>> identity_of(rates=[0.5, torch.zeros(2)])["rates[0]"]
        '0.5'
    """
    models = [thing for thing in things.values() if isinstance(thing, nn.Module)]
    walk = _Walk({id(tensor) for model in models for tensor in model.state_dict(keep_vars=True).values()})
    for name, thing in things.items():
        try:
            walk.tell(name, thing)
        except RecursionError as error:
            raise ValueError(f"{name} is nested too deep to be told in a checkpoint: flatten its lists") from error
    return walk.told


def digest(content: Any) -> str:
    """A short text that stands for a tensor, an array, bytes or anything with a lasting ``repr``."""
    if isinstance(content, Tensor):
        whole = content.detach().cpu().resolve_conj().resolve_neg()
        whole = whole if whole.layout is torch.strided else whole.to_dense()
        content = whole.contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(content, numpy.ndarray):
        content = numpy.ascontiguousarray(content).reshape(-1).view(numpy.uint8).data
    elif not isinstance(content, bytes):
        content = repr(content).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def differences(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """Where two identities differ, each name with what it is there and here."""
    told = []
    for name in [*here, *(there.keys() - here.keys())]:
        before, now = there.get(name, "nothing"), here.get(name, "nothing")
        (old, _, _), (new, _, _) = before.partition(" #"), now.partition(" #")
        if before != now:
            told.append(f"{name}: other content" if old == new else f"{name}: {old} there, {new} here")
    return told


class _Walk:
    """Goes through objects and all that they hold, each once; ``told`` is what it found."""

    def __init__(self, trained: set[int]):
        self.trained = trained  # ids of the tensors that training changes
        self.told: dict[str, str] = {}
        self.seen: dict[int, tuple[str, object]] = {}  # with the objects, so that no id is given twice
        self.classes: set[type] = set()

    def tell(self, name: str, thing: Any) -> None:
        thing = thing.item() if isinstance(thing, numpy.generic) else thing
        if type(thing) in PLAIN:
            text = repr(thing)
            self.told[name] = text if len(text) <= MOST else f"{type(thing).__name__} #{digest(text)}"
        elif id(thing) in self.seen:
            self.told[name] = f"the same as {self.seen[id(thing)][0]}"
        else:
            if type(thing) is not tuple:  # equal constants are one tuple in one process and two in another
                self.seen[id(thing)] = name, thing
            self.told[name], parts = self._look_at(thing)
            inside = self._apart({name + key: part for key, part in parts.items()})
            if type(thing) in (list, tuple, dict) and len(inside) > MOST:
                self.told[name] += f" of {len(thing)} #{digest(sorted(inside.items()))}"
            else:
                self.told |= inside
            for kind in (thing if isinstance(thing, type) else type(thing)).__mro__:
                self._tell_code_of(kind)

    def _apart(self, parts: dict[str, Any]) -> dict[str, str]:
        """What is told of some parts."""
        before, self.told = self.told, {}
        for name, part in parts.items():
            self.tell(name, part)
        inside, self.told = self.told, before
        return inside

    def _alone(self, part: Any) -> dict[str, str]:
        """What is told of a member of a set, or a key, whichever comes first."""
        walk = _Walk(self.trained)
        walk.seen, walk.classes = {**self.seen}, {*self.classes}
        walk.tell("", part)
        return walk.told

    def _look_at(self, thing: Any) -> tuple[str, dict[str, Any]]:
        """A text for a thing itself, and its parts."""
        kind = type(thing)
        if isinstance(thing, Tensor):
            text = f"{thing.dtype} {tuple(thing.shape)}{' trained' if thing.requires_grad else ''}"
            text = text if id(thing) in self.trained else f"{text} #{digest(thing)}"
            return text, {f".{key}": part for key, part in _hooks(thing).items()}
        if kind in (numpy.ndarray, numpy.memmap) and not thing.dtype.hasobject:
            return f"array of {thing.dtype} {thing.shape} #{digest(thing)}", {}
        if isinstance(thing, torch.Generator):
            return f"Generator #{digest(thing.get_state())}", {}
        if isinstance(thing, (set, frozenset)):
            return f"{kind.__name__} #{digest(sorted(repr(self._alone(part)) for part in thing))}", {}
        if isinstance(thing, (torch.device, ModuleType)):
            return kind.__name__, {}
        if isinstance(thing, type):
            return thing.__qualname__, {}
        if kind is dict:
            parts = {f"[{key!r}]": part for key, part in thing.items() if type(key) in PLAIN}
            for key, part in thing.items():
                if type(key) not in PLAIN:  # its repr may hold an address
                    parts.setdefault(f"[{type(key).__name__} #{digest(self._alone(key))}]", []).append(part)
            return "dict", parts
        if kind in (list, tuple):
            return kind.__name__, {f"[{place}]": part for place, part in enumerate(thing)}
        if isinstance(thing, FunctionType):
            text, parts = _look_at_function(thing)
        else:
            text, parts = _look_at_module(thing) if isinstance(thing, nn.Module) else _look_at_object(thing)
        ours = kind.__module__.startswith("ebmm." if not isinstance(thing, nn.Module) else ("ebmm.", "torch."))
        return text, {
            f".{key}": part
            for key, part in parts.items()
            if not (ours and str(key).startswith("_"))  # caches, or what follows from other attributes
            and not str(key).startswith("_torchdynamo")  # the same once more, and a number that no other process has
            and not isinstance(getattr(kind, str(key), None), cached_property)
        }

    def _tell_code_of(self, kind: type) -> None:
        """The functions and constants of a class, if it is the user's own."""
        nowhere = vars(kind).get("__module__") == "builtins"  # made by exec
        if kind in self.classes or (_is_installed(kind.__module__) and not nowhere):
            return
        self.classes.add(kind)
        for key, value in vars(kind).items():
            value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if (isinstance(value, FunctionType) and key not in NO_NUMBERS) or not key.startswith("__"):
                self.tell(f"{kind.__qualname__}.{key}", value)


def _look_at_module(module: nn.Module) -> tuple[str, dict[str, Any]]:
    parts = {key: value for key, value in vars(module).items() if key not in OF_EVERY_MODULE}
    for inside in (module._parameters, module._buffers, module._modules):
        parts |= dict(inside.items())
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):
        parts["code"] = module.code
    return type(module).__qualname__, parts | _hooks(module)


def _hooks(thing: Tensor | nn.Module) -> dict[str, Any]:
    hooks = [hook for kind in HOOKS for hook in (getattr(thing, kind, None) or {}).values()]
    return {"hooks": hooks} if hooks else {}


def _look_at_object(thing: Any) -> tuple[str, dict[str, Any]]:
    """The parts that pickle would take an object into."""
    kind = type(thing)
    try:
        reduce: Any = copyreg.dispatch_table.get(kind, lambda thing: thing.__reduce_ex__(4))
        reduced = reduce(thing)
    except Exception:  # a lock, an open file, or what a class's own way to be pickled stumbles over
        reduced = copyreg.__newobj__, (kind,), getattr(thing, "__dict__", None)  # type: ignore[attr-defined]
    if isinstance(reduced, str):
        return reduced, dict(getattr(thing, "__dict__", {}))  # such as what a decorator wraps
    _, arguments, state, elements, pairs = (*reduced, None, None, None)[:5]
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # with __slots__
        state = (state[0] or {}) | state[1]
    arguments = [part for part in arguments if part is not kind]
    state = state if isinstance(state, dict) else {} if state is None else {"state": state}
    others = {"()": arguments, "[]": list(elements or ()), "{}": dict(pairs or ())}
    parts = state | {key: part for key, part in others.items() if part}
    return kind.__qualname__, parts | ({"images": thing.loaded.images} if isinstance(thing, LazyImages) else {})


def _look_at_function(function: FunctionType) -> tuple[str, dict[str, Any]]:
    """Its code, and what it refers to; of an installed package's the name only."""
    name, parts, code = function.__qualname__, dict(vars(function)), function.__code__
    if _is_installed(function.__globals__.get("__name__") or ""):
        return f"{function.__module__}.{name}", parts
    parts |= {"defaults": function.__defaults__, "keywords": function.__kwdefaults__}
    parts |= _referred(function)
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    parts |= {key: cell.cell_contents for key, cell in cells if cell != CellType()}  # an empty one is set later
    return f"{name} #{digest(_operations(code, function.__doc__))}", parts


def _is_installed(module: str) -> bool:
    """Whether code is told by its version: the standard library's, ours, or an installed package's."""
    top = module.partition(".")[0]
    if top in ("", "__main__"):
        return False
    files = [getattr(sys.modules.get(name), "__file__", None) for name in (module, top)]
    files += [] if top in sys.modules else [getattr(find_spec(top), "origin", None)]
    folders = {folder for file in files if file for folder in Path(file).parts}
    return top in ("ebmm", *sys.stdlib_module_names) or not folders.isdisjoint({"site-packages", "dist-packages"})


def _operations(code: CodeType, documentation: str | None = None) -> list[Any]:
    """What a function does, without its place, comments and docstring."""
    constants: list[Any] = [None if one == documentation else one for one in code.co_consts]
    for place, one in enumerate(constants):
        if isinstance(one, (CodeType, frozenset)):
            constants[place] = _operations(one) if isinstance(one, CodeType) else sorted(map(repr, one))
    return [code.co_code, code.co_names, constants]


def _referred(function: FunctionType) -> dict[str, Any]:
    """The globals in its code, and all named there of the user's own modules, those it imports itself too."""
    around, codes = function.__globals__, _codes(function.__code__)
    names = sorted({name for code in codes for name in code.co_names})
    steps = [step for code in codes for step in dis.get_instructions(code)]
    own = sorted({step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")})
    found = {key: around[key] for key in own if key in around}
    modules = [(key, part) for key, part in found.items() if isinstance(part, ModuleType)]
    for level, wanted, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            with suppress(Exception):  # what is not there, the function does without
                name = resolve_name("." * level.argval + step.argval, around.get("__package__"))
                if not _is_installed(name):
                    modules.append((name, __import__(name, fromlist=wanted.argval or ("__name__",))))
    passed = set()
    for key, module in modules:
        if module not in passed and not _is_installed(module.__name__):
            passed.add(module)
            inside = {f"{key}.{name}": vars(module)[name] for name in names if name in vars(module)}
            modules += [(name, part) for name, part in inside.items() if isinstance(part, ModuleType)]
            found |= inside
    return found


def _codes(code: CodeType) -> list[CodeType]:
    """A function's code and that of all functions in it."""
    return [code, *(inner for one in code.co_consts if isinstance(one, CodeType) for inner in _codes(one))]
