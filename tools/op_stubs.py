"""Write fastnst/ops/raw.pyi, the types of `torch.ops.fastnst`, from the registered schemas.

    python -m tools.op_stubs

tests/packaging/test_op_stubs.py fails where the file differs from the schemas.
"""

from __future__ import annotations

from pathlib import Path

import torch

import fastnst.ops  # noqa: F401  registers the ops

STUB = Path(__file__).resolve().parent.parent / "fastnst" / "ops" / "raw.pyi"

HEAD = '''"""Made by `python -m tools.op_stubs` from the registered schemas."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import Tensor
from torch._ops import OpOverloadPacket

_P = ParamSpec("_P")
_R = TypeVar("_R")

def _op(signature: Callable[_P, _R]) -> OpOverloadPacket[_P, _R]: ...
'''

WIDTH = 120
TYPES = {
    "Tensor": "Tensor",
    "Optional[Tensor]": "Tensor | None",
    "float": "float",
    "int": "int",
    "bool": "bool",
    "str": "str",
}


def schemas() -> list[torch._C.FunctionSchema]:
    """The schemas of the ops that take tensors, by name."""
    ours = [schema for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("fastnst::")]
    with_tensors = [schema for schema in ours if any("Tensor" in str(each.type) for each in schema.arguments)]
    return sorted(with_tensors, key=lambda schema: schema.name)


def signature(schema: torch._C.FunctionSchema) -> str:
    """A schema as a Python function, in lines as ruff breaks them.

    Raises:
        KeyError: a type of the schema has no entry in ``TYPES``.
    """
    arguments = [f"{each.name}: {TYPES[str(each.type)]}" for each in schema.arguments]
    returned = [TYPES[str(each.type)] for each in schema.returns]
    result = "None" if not returned else returned[0] if len(returned) == 1 else f"tuple[{', '.join(returned)}]"
    start, end = f"def {schema.name.removeprefix('fastnst::')}(", f") -> {result}: ..."
    joined = ", ".join(arguments)
    if len(start + joined + end) <= WIDTH:
        return start + joined + end
    if len(joined) + 4 <= WIDTH:
        return f"{start}\n    {joined}\n{end}"
    return start + "".join(f"\n    {each}," for each in arguments) + f"\n{end}"


def stub() -> str:
    """The text of the stub file."""
    return HEAD + "".join(f"@_op\n{signature(schema)}\n" for schema in schemas())


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
    print(STUB)
