"""``torch.ops.fastnst`` for type checkers: the same ops, with the signatures of their schemas in ``raw.pyi``.

``torch.ops`` has no types, because its ops are known only at run time. These take exactly the arguments of a schema and
check them less than the functions of :mod:`fastnst.ops`, which are the ones to call unless an overload is needed, as
``torch.library.opcheck`` does.

Example:
    >>> import torch
    >>> from fastnst.ops import raw
    >>> raw.gram(torch.ones(1, 2, 4), None, 0.25)
    tensor([[[1., 1.],
             [1., 1.]]])
    >>> raw.gram.default is torch.ops.fastnst.gram.default
    True
"""

from typing import Any

import torch


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(torch.ops.fastnst, name)
