"""The pickles of ``torch.save``, interpreted without running code.

Supported are the opcodes that PyTorch writes for dicts, lists, tuples, numbers and text. Functions and classes are
represented by their names, so that nothing is imported or called.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastnst.errors import WeightsError, printable

WANTED = "fastnst reads plain tensors only, as torch.save(model.state_dict(), ...) writes them"
_MODULES = ("torch", "torch._tensor", "torch._utils", "torch.cuda", "torch.serialization", "torch.storage")
_HARMLESS = ("collections.OrderedDict", "collections.Counter", "_codecs.encode", "__builtin__.set", "builtins.set")
_KEYS = (str, int, float, type(None))  # a tuple of tuples may take exponential time to hash
_COPIES = 1_000_000  # limit on the entries copied by all calls of OrderedDict, far above those of a state dict
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING")
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}


@dataclass(frozen=True)
class Name:
    """A global that a pickle refers to, such as ``torch.FloatStorage``."""

    name: str


class Pickle:
    """Interprets the pickles of ``file`` one after another.

    ``call(name, arguments)`` returns the result of a call of PyTorch's ``name``, ``refer(id)`` the object of a
    persistent id. Raises WeightsError for globals outside PyTorch and for opcodes that PyTorch does not write.
    """

    def __init__(self, file: io.BytesIO, call: Callable[[str, Any], Any], refer: Callable[[Any], Any]) -> None:
        self.file, self.call, self.refer = file, call, refer
        self.copied = 0

    def load(self) -> Any:
        """Return the next object."""
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack at each mark
        self.memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(self.file):
            if opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _VALUES:
                self.stack.append(argument)
            elif opcode.name not in ("PROTO", "STOP"):
                self._do(opcode.name, argument)
        return self.stack.pop()

    def _do(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode == "MARK":
            self.below.append(stack)
            self.stack = []
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode == "TUPLE":
            stack = self._marked()
            self.stack.append(tuple(stack))
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(opcode[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode in ("APPEND", "APPENDS"):
            items = [stack.pop()] if opcode == "APPEND" else self._marked()
            self.stack[-1].extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if opcode == "SETITEM" else self._marked()
            self._update(self.stack[-1], zip(items[::2], items[1::2], strict=True))
        elif opcode == "GLOBAL":
            stack.append(_named(*argument.split(" ", 1)))
        elif opcode == "BINPERSID":
            stack.append(self.refer(stack.pop()))
        elif opcode == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._called(function, arguments))
        elif opcode == "BUILD":
            stack.pop()  # attributes, such as a state dict's _metadata
        else:
            raise WeightsError(f"refused, a pickle that torch.save did not write; {WANTED}")

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is not a function")
        if function.name != "collections.OrderedDict":
            return self.call(function.name, arguments)
        entries: dict[Any, Any] = {}
        for pairs in arguments:
            self.copied += len(pairs)
            if self.copied > _COPIES:
                raise ValueError("too many entries")
            self._update(entries, pairs)
        return entries

    @staticmethod
    def _update(entries: Any, pairs: Iterable[Any]) -> None:
        for key, value in pairs:
            if not isinstance(key, _KEYS):
                raise TypeError("a key that is neither text nor number")
            entries[key] = value


def _named(module: str, name: str) -> Name:
    if module not in _MODULES and f"{module}.{name}" not in _HARMLESS:
        raise WeightsError(f"refused, reading it would run code ({printable(f'{module}.{name}')}); {WANTED}")
    return Name(f"{module}.{name}")
