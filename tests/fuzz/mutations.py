"""Ways to damage bytes: blindly, and with knowledge of a format, so that the damage passes the first checks."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

INTEGERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
NUMBERS = (
    "0",
    "-1",
    "1",
    "1e300",
    "-1e300",
    "1e-300",
    "NaN",
    "nan",
    "Infinity",
    "inf",
    "-inf",
    "0.5",
    "9" * 400,
    "1e99999",
)
TEXTS = ("", "x", "../../etc", "a\x1b[31m\x07b", "line\nline", "\u202e", "\udcff", "n" * 5000, "/dev/zero", ".", "none")


# Blind


def flip_bits(random: Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        found[_place(random, data)] ^= 1 << random.randrange(8)
    return bytes(found)


def truncate(random: Random, data: bytes) -> bytes:
    return data[: _place(random, data)]


def insert(random: Random, data: bytes) -> bytes:
    at, count = _place(random, data), random.choice((1, 2, 4, 17, 300))
    return data[:at] + random.choice((random.randbytes(count), bytes(count), data[at : at + count])) + data[at:]


def delete(random: Random, data: bytes) -> bytes:
    at = _place(random, data)
    return data[:at] + data[at + random.choice((1, 2, 4, 16, 300)) :]


def set_integer(random: Random, data: bytes) -> bytes:
    """Replace an aligned integer of 1 to 8 bytes, of either byte order, by an extreme value."""
    size = random.choice((1, 2, 4, 8))
    at = min(_place(random, data), max(len(data) - size, 0)) // size * size
    value = random.choice(INTEGERS) % 256**size
    return data[:at] + value.to_bytes(size, random.choice(("little", "big"))) + data[at + size :]


def _place(random: Random, data: bytes) -> int:
    """A random offset, usually near one of the ends, where headers and tables are."""
    near = min(len(data), 600)
    if not data:
        return 0
    return random.choice((random.randrange(near), len(data) - 1 - random.randrange(near), random.randrange(len(data))))


BLIND: tuple[Mutation, ...] = (flip_bits, truncate, insert, delete, set_integer, set_integer)


def splice(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(random, data)] + other[_place(random, other) :]


# Text


def token(random: Random, data: bytes) -> bytes:
    """Replace a number or a quoted string of a text format by another value."""
    text = data.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\"[^\"\n]*\"|\btrue\b|\bfalse\b|\bnull\b", text))
    if not found:
        return flip_bits(random, data)
    hit = random.choice(found)
    values = (*NUMBERS, *NUMBERS, "true", "[]", "{}", '""', "null", "[" * 3000, "2000-01-01", *map(json.dumps, TEXTS))
    return (text[: hit.start()] + random.choice(values) + text[hit.end() :]).encode("utf-8", "surrogateescape")


def line(random: Random, data: bytes) -> bytes:
    """Remove, duplicate or move a line."""
    lines = data.split(b"\n")
    one = lines.pop(random.randrange(len(lines)))
    for _ in range(random.choice((0, 1, 2))):
        lines.insert(random.randrange(len(lines) + 1), one)
    return b"\n".join(lines)


def json_value(random: Random, value: Any) -> Any:
    """A copy of a JSON value with one of the values in it replaced, removed or renamed."""
    places = list(_places(value))
    if not places:
        return _other(random)
    holder_path, key = random.choice(places)
    copy = json.loads(json.dumps(value))
    holder = copy
    for step in holder_path:
        holder = holder[step]
    kind = random.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[random.choice((*TEXTS, "name"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.extend([holder[key]] * random.choice((1, 40)))
    else:
        holder[key] = _other(random)
    return copy


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield path, key
            yield from _places(value[key], (*path, key))


def _other(random: Random) -> Any:
    values = (0, -1, 1, 1.5, 1e300, -1e300, float("nan"), float("inf"), 10**400, 2**63, True, False, None, [], {}, [[]])
    return random.choice((*values, random.choice(TEXTS), [1, 2, 3], {"a": 1}, [-1], ["relu1_1", 1]))


# Formats


def png(random: Random, data: bytes) -> bytes:
    """Change, duplicate, move or remove chunks of a PNG, with correct checksums."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    index = random.randrange(len(chunks))
    name, body = chunks[index]
    kind = random.randrange(5)
    if kind == 0:
        chunks.insert(random.randrange(len(chunks)), chunks[index])
    elif kind == 1:
        del chunks[index]
    elif kind == 2:
        chunks[index] = (random.choice((b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"gAMA", b"eXIf", b"abcd")), body)
    elif name == b"IDAT" and kind == 3:
        chunks[index] = (name, zlib.compress(blind(random, zlib.decompress(body))))
    else:
        chunks[index] = (name, blind(random, body))
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return data[:8] + b"".join(parts)


def tiff(random: Random, data: bytes) -> bytes:
    """Replace a field of an entry of the first directory by an extreme value."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, start)
    entry = start + (8 if big else 2) + random.randrange(count) * (20 if big else 12)
    at, size = random.choice([(0, 2), (2, 2), (4, 8), (12, 8)] if big else [(0, 2), (2, 2), (4, 4), (8, 4), (8, 2)])
    tags = (256, 257, 258, 259, 262, 273, 277, 278, 279, 317, 322, 323, 324, 325, 338, 339, 34675)
    value = random.choice((*INTEGERS, *tags, 5, 7, 8, 16, 32, 50000, 32946)) % 256**size
    value_bytes = value.to_bytes(size, "little" if order == "<" else "big")
    return data[: entry + at] + value_bytes + data[entry + at + size :]


def safetensors(random: Random, data: bytes) -> bytes:
    """Change the header of a safetensors file as JSON, with a correct length."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    inner = header.get("__metadata__", {}).get("fastnst")
    if inner is not None and random.random() < 0.5:
        header["__metadata__"]["fastnst"] = json.dumps(json_value(random, json.loads(inner)))
        text = json.dumps(header).encode()
    else:
        text = _encoded(json_value(random, header))
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def archive(random: Random, data: bytes) -> bytes:
    """Change, rename, remove or duplicate a member of a zip file, with correct checksums and sizes."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        members = [(info.filename, opened.read(info)) for info in opened.infolist()]
    index = random.randrange(len(members))
    name, body = members[index]
    kind = random.randrange(6)
    if kind == 0:
        del members[index]
    elif kind == 1:
        members[index] = (random.choice((*TEXTS[1:], members[0][0], "conv1_1_W.npy")), body)
    elif kind == 2 and name.endswith(".npy"):
        members[index] = (name, npy_header(random, body))
    else:
        members[index] = (name, blind(random, body))
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as written:
        seen = set()
        for name, body in members:
            if name not in seen and (safe := name.encode("utf-8", "replace").decode()):
                written.writestr(zipfile.ZipInfo(safe), body)
            seen.add(name)
    return found.getvalue()


def npy_header(random: Random, body: bytes) -> bytes:
    """Change the dictionary at the start of an array file, with a correct length."""
    (length,) = struct.unpack_from("<H", body, 8)
    text = body[10 : 10 + length].decode("latin1")
    values = (*NUMBERS, "[]", "None", "'O'", "'<f4'", "'>f4'", "'|S9'", "'<c8'", "True", "()", "(" * 90, "99999999999")
    hit = random.choice(list(re.finditer(r"\d+|'[^']*'|True|False|\(.*?\)", text)))
    changed = (text[: hit.start()] + random.choice(values) + text[hit.end() :]).encode("latin1")
    return body[:8] + struct.pack("<H", len(changed)) + changed + body[10 + length :]


def mat(random: Random, data: bytes) -> bytes:
    """Change words of a MATLAB 5 file, also inside compressed elements."""
    if struct.unpack_from("<I", data, 128)[0] != 15:
        return set_word(random, data, start=128)
    (size,) = struct.unpack_from("<I", data, 132)
    inner = zlib.compress(set_word(random, zlib.decompress(data[136 : 136 + size])))
    return data[:132] + struct.pack("<I", len(inner)) + inner + data[136 + size :]


def set_word(random: Random, data: bytes, start: int = 0) -> bytes:
    """Replace an aligned word of four bytes, usually within the first kilobyte, by a small or an extreme value."""
    end = len(data) if random.random() < 0.2 else min(len(data), start + 1200)
    at = random.randrange(start, max(end - 3, start + 1)) // 4 * 4
    value = random.choice((*INTEGERS, *range(20), 256, 1000)) % 2**32
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def hdf5(random: Random, data: bytes) -> bytes:
    """Change names, and small integers, such as addresses, sizes, types and counts of HDF5."""
    names = list(re.finditer(rb"[A-Za-z_][\w:/]{3,}", data))
    if names and random.random() < 0.3:
        hit, other = random.choice(names), random.choice(names)[0]
        put = random.choice((other, b"\x1b[31m", b"\xff\xfe", b".", b"/")).ljust(len(hit[0]), b"\0")[: len(hit[0])]
        return data[: hit.start()] + put + data[hit.end() :]
    words = [
        at for at in range(0, len(data) - 8, 8) if data[at : at + 8] != bytes(8) and data[at + 4 : at + 8] == bytes(4)
    ]
    at = random.choice(words)
    (old,) = struct.unpack_from("<Q", data, at)
    value = random.choice((*INTEGERS, old + 1, old * 8, random.choice(words), len(data))) % 2**64
    return data[:at] + struct.pack("<Q", value) + data[at + 8 :]


def blind(random: Random, data: bytes) -> bytes:
    return random.choice(BLIND)(random, data)


def mutated(random: Random, seeds: Sequence[bytes], knowing: Sequence[Mutation]) -> bytes:
    """One of the seeds, damaged in one to three ways; in one of eight cases two seeds are spliced."""
    data = random.choice(seeds)
    if random.random() < 0.125:
        return splice(random, data, random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        mutation = random.choice(knowing) if knowing and random.random() < 0.6 else random.choice(BLIND)
        try:
            data = mutation(random, data)
        except Exception:
            data = blind(random, data)  # too damaged for a mutation that parses the format
    return data
