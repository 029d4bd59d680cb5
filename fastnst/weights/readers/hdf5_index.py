"""A program that prints the locations of the values in an HDF5 file as JSON: ``python hdf5_index.py FILE``.

It runs as a separate process, because the HDF5 library may crash or not terminate on a damaged file. The library also
opens other files through links and datasets and loads plugins for filters, so whatever Keras does not write is rejected
before it is opened, and no values are read except those in the header of a dataset.

The JSON contains the arrays, the reason of a rejection (``"refused"``) or an error (``"damaged"``). The program needs
h5py and no other module of fastnst.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LAYER = re.compile(r"^block([1-5])_conv([1-4])$")
_DEPTH = 32  # groups within groups
_NAMES = 1 << 22  # characters of all names
_VALUES = 9 * 512 * 512  # of VGG's largest kernel
_CHUNKS = 100_000  # of all arrays
_SECONDS, _BYTES = 5, 2 << 30  # limits of this process


class Refused(Exception):
    """The file contains something that Keras does not write."""


def index(path: str) -> list[dict[str, Any]]:
    """Describe the datasets of a file."""
    import h5py

    arrays: list[dict[str, Any]] = []
    with h5py.File(path, "r") as file:
        room = _CHUNKS
        for where, layer, node in _datasets(h5py, file):
            array = {"where": where, "layer": layer, "floats": node.id.get_type().get_class() == h5py.h5t.FLOAT}
            if array["floats"]:
                array |= _described(h5py, node, room)
                room -= len(array["stored"])
            arrays.append(array)
    return arrays


def _datasets(h5py: Any, file: Any) -> Iterator[tuple[str, str | None, Any]]:
    """Visit all groups once, without recursion; yield each dataset's path, its layer by its groups' names, and it."""
    seen = set()
    characters = 0
    groups: list[tuple[str, Any, str | None, str | None]] = [("", file, None, None)]
    while groups:
        where, group, named, labeled = groups.pop()
        if where.count("/") > _DEPTH:
            raise Refused(f"nests groups more than {_DEPTH} deep")
        for name in group:
            inside = f"{where}{name}"
            characters += len(inside)
            if characters > _NAMES:
                raise Refused(f"it has names of more than {_NAMES} characters")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{inside} is a link; Keras writes none")
            node = group[name]
            address = h5py.h5o.get_info(node.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(node, h5py.Group):
                groups.append((f"{inside}/", node, _layer(name) or named, labeled or _layer(_label(h5py, node))))
            elif isinstance(node, h5py.Dataset):
                if node.external or node.is_virtual:  # before the shape, which opens a virtual dataset's sources
                    raise Refused(f"{inside} keeps its values in another file")
                yield inside, named or labeled, node


def _layer(name: str) -> str | None:
    match = _LAYER.match(name)
    return f"conv{match[1]}_{match[2]}" if match else None


def _label(h5py: Any, group: Any) -> str:
    """Return the text of a group's attribute ``name``, empty if there is none."""
    if "name" not in group.attrs:
        return ""
    attribute = group.attrs.get_id("name")
    text = attribute.shape == () and attribute.get_type().get_class() == h5py.h5t.STRING
    value = group.attrs["name"] if text and attribute.get_storage_size() <= 256 else ""
    return value if isinstance(value, str) else ""


def _described(h5py: Any, node: Any, room: int) -> dict[str, Any]:
    """Describe a dataset of floats: shape, dtype (None for an unusual one), and the location of its values."""
    kind = node.id.get_type()
    usual = [getattr(h5py.h5t, f"IEEE_F{bits}{order}") for bits in (16, 32, 64) for order in ("LE", "BE")]
    dtype = node.dtype.str if any(map(kind.equal, usual)) else None
    shape = node.shape or ()
    array = {"shape": shape, "dtype": dtype, "chunks": node.chunks, "offset": node.id.get_offset(), "stored": []}
    if dtype is None or math.prod(shape) > _VALUES:
        return array
    properties = node.id.get_create_plist()
    array["fill"] = float(node.fillvalue)
    if node.chunks:
        array["filters"] = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
        stored: list[Any] = []
        node.id.chunk_iter(lambda chunk: stored.append(list(chunk)) if len(stored) < room else True)
        if len(stored) == room:
            raise Refused(f"it has more than {_CHUNKS} chunks")
        array["stored"] = stored
    elif properties.get_layout() == h5py.h5d.COMPACT:
        array["values"] = node[()].tobytes().hex()
    return array


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows: the caller's timeout is the only limit
        return
    for what, most in ((resource.RLIMIT_CPU, _SECONDS), (resource.RLIMIT_AS, _BYTES), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Print the description of the file named on the command line."""
    here = Path(__file__).parent
    # so that h5py does not import the modules beside this file
    sys.path[:] = [folder for folder in sys.path if Path(folder) != here]
    _limit()
    answer: dict[str, Any]
    try:
        answer = {"arrays": index(sys.argv[1])}
    except Refused as error:
        answer = {"refused": str(error)}
    except Exception as error:
        answer = {"damaged": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
