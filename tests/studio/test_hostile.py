"""A thousand hostile uploads and parameters: nothing runs, nothing is lost, the server answers."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from pathlib import Path

import pytest
from clients import Studio, picture
from PIL import Image

COUNT = 1000
TEXTS = [
    "",
    "none",
    "nan",
    "inf",
    "-1",
    "1e999",
    "9" * 400,
    "relu?_1:1*1e30",
    "a:b:c",
    "*",
    "[",
    "\0",
    "é",
    "../..",
    "on",
    "512",
]
TEXTS += [
    "$(touch pwned)",
    "`id`",
    "{{7*7}}",
    "<script>",
    "';--",
    "relu1_1," * 90,
    "1,2,3",
    "auto",
    "1/0",
    "true",
    "0x10",
]


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that claims to have a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def files() -> list[bytes]:
    image = Image.open(io.BytesIO(picture()))
    found = [
        bomb(60000, 60000),
        bomb(2**31 - 1, 2),
        bomb(0, 0),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"PK\x03\x04",
        b"#!/bin/sh\ntouch pwned\n",
    ]
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM"):
        file = io.BytesIO()
        image.save(file, kind)
        found.append(file.getvalue())
    return found


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A file with some bytes changed, or a part left out."""
    changed = bytearray(data)
    for _ in range(chance.choice([0, 1, 8, 64])):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.choice([len(changed), chance.randrange(1, len(changed) + 1)])])


def value(chance: random.Random, known: list[str]) -> object:
    """A value of JSON that a request may have by mistake or malice."""
    return chance.choice(
        [
            None,
            True,
            -1,
            10**30,
            0.5,
            "",
            chance.choice(TEXTS),
            [],
            {},
            known,
            chance.choice(known),
            [known[0]] * 9,
            {"a": {}},
        ]
    )


def request_body(chance: random.Random, known: list[str], names: list[str]) -> bytes:
    body: dict[str, object] = {"content": known[0], "styles": known[:1]}
    for part in chance.sample(
        ["content", "styles", "masks", "style_masks", "content_mask", "settings", "title", "x"], 2
    ):
        body[part] = value(chance, known)
    if chance.random() < 0.6:
        body["settings"] = {chance.choice(names): chance.choice(TEXTS) for _ in range(chance.choice([1, 1, 3]))}
    text = json.dumps(body)
    return (text[: chance.randrange(len(text))] if chance.random() < 0.1 else text).encode()


@pytest.mark.parametrize("part", range(4))
@pytest.mark.sweep(4)
def test_a_thousand_requests(studio: Studio, part: int) -> None:
    chance = random.Random(part)
    kept = studio.start()
    studio.wait(kept, "done")
    before, pixels = studio.job(kept), studio.pixels(kept)
    names = [name for group in studio.get("/api/settings").json()["groups"] for name in group["settings"]]
    known, originals = [before["content"], *before["styles"]], files()
    secret = shared_secret(studio)
    root = Path(studio.app.state.services.store.folder)
    outside = set(root.parent.iterdir())
    for _ in range(COUNT // 4):
        if chance.random() < 0.4:
            data = damaged(chance.choice(originals), chance)
            name = chance.choice(TEXTS).replace("\0", "") + chance.choice([".png", ".jpg", ".svg", ""])
            answer = studio.post(
                "/api/pictures", files={"file": (name, data)}, data={"kind": chance.choice(["mask", "x"])}
            )
        else:
            # What could start a run is asked for its plan: a thousand runs would take their time.
            body = request_body(chance, known, names)
            path = chance.choice(
                ["/api/plan", "/api/plan", f"/api/jobs/{kept}", "/api/jobs/" + chance.choice(TEXTS[-8:])]
            )
            method = "POST" if path == "/api/plan" else "PATCH"
            answer = studio.request(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 201, 400, 404, 405, 409, 422), (answer.status_code, answer.text)
        assert secret not in answer.content
        if answer.status_code >= 400:
            assert "\n" not in answer.json().get("error", "\n")
    assert studio.job(kept)["state"] == "done"
    assert (studio.pixels(kept) == pixels).all()
    assert set(root.parent.iterdir()) == outside
    assert not list(root.rglob("pwned"))
    assert not Path("pwned").exists()
    # And it still works.
    studio.wait(studio.start(), "done")


def shared_secret(studio: Studio) -> bytes:
    secret: bytes = studio.app.state.services.access.keys._secret
    return secret
