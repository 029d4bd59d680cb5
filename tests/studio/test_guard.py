"""Who may ask the studio, and what it reads: other sites, other hosts, other visitors, other files."""

from __future__ import annotations

import http.cookies
import os
import time
from pathlib import Path

import pytest
from clients import Studio, picture

from fastnst.errors import UsageError
from fastnst.studio import serve


def end_process(*_: object) -> None:
    os._exit(1)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://example.org"},
        {"origin": "http://127.0.0.1:7861"},  # another port is another site
        {"origin": "null"},
    ],
)
def test_requests_of_other_sites_are_refused(shared: Studio, headers: dict[str, str]) -> None:
    before = shared.get("/api/pictures").json()
    answer = shared.post("/api/demo", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"] == "requests of other sites are refused"
    assert shared.get("/api/pictures").json() == before


def test_a_name_that_leads_here_is_refused(shared: Studio) -> None:
    """DNS rebinding: the browser believes that the page of evil.example is at this address."""
    for path in ("/", "/api/jobs", "/static/index.html"):
        answer = shared.get(path, headers={"host": "evil.example:7860"})
        assert answer.status_code == 403
    assert shared.get("/api/jobs", headers={"host": "localhost:7860"}).status_code == 200
    assert shared.get("/api/jobs", headers={"host": "[::1]:7860"}).status_code == 200


def cookie_of(answer: object) -> str:
    cookies = http.cookies.SimpleCookie(answer.headers["set-cookie"])  # type: ignore[attr-defined]
    (morsel,) = cookies.values()
    assert morsel["httponly"]
    assert morsel["samesite"] == "Lax"
    return morsel.value


def test_the_page_gives_each_browser_a_key(shared: Studio) -> None:
    del shared.headers["authorization"]
    try:
        first = shared.get("/", follow_redirects=False)
        shared.cookies.clear()
        second = shared.get("/", follow_redirects=False)
        assert first.status_code == 303
        assert first.headers["location"] == "/"
        assert cookie_of(first) != cookie_of(second)
        shared.cookies.clear()
        answer = shared.get("/", headers={"cookie": f"fastnst_studio={cookie_of(first)}"})
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        link = shared.get("/api/me", headers={"cookie": f"fastnst_studio={cookie_of(first)}"}).json()["link"]
        again = shared.get(link, follow_redirects=False)
        assert cookie_of(again) == cookie_of(first)
    finally:
        shared.cookies.clear()
        shared.headers["authorization"] = f"Bearer {shared.keys.owner()}"


@pytest.mark.parametrize("key", ["", "x", "owner", "owner.", "owner." + "0" * 32, "owner.é", "a.b.c"])
def test_forged_keys(shared: Studio, key: str) -> None:
    for headers in ({"authorization": f"Bearer {key}".encode()}, {"cookie": f"fastnst_studio={key}".encode()}):
        answer = shared.get("/api/jobs", headers={"authorization": "", **headers})
        assert answer.status_code == 401
        assert "open the link" in answer.json()["error"]


def test_two_visitors_do_not_see_each_other(studio: Studio) -> None:
    mine = studio.start()
    job = studio.job(mine)
    other = studio.as_visitor(studio.keys.new())
    assert studio.get("/api/pictures", headers=other).json() == {"pictures": []}
    assert studio.get("/api/jobs", headers=other).json() == {"jobs": []}
    content = job["content"]
    paths = [f"/api/pictures/{content}", f"/api/pictures/{content}/preview"]
    paths += [f"/api/jobs/{mine}{end}" for end in ("", "/trace", "/live", "/thumbnail", "/result", "/settings.toml")]
    for path in paths:
        assert studio.get(path, headers=other).status_code == 404
    for verb in ("pause", "resume", "stop", "again"):
        assert studio.post(f"/api/jobs/{mine}/{verb}", headers=other).status_code == 404
    assert studio.patch(f"/api/jobs/{mine}", json={"title": "x"}, headers=other).status_code == 404
    assert studio.delete(f"/api/jobs/{mine}", headers=other).status_code == 404
    assert studio.delete(f"/api/pictures/{content}", headers=other).status_code == 404
    run = {"content": content, "styles": [content]}
    assert studio.post("/api/plan", json=run, headers=other).status_code == 404
    assert studio.post("/api/jobs", json=run, headers=other).status_code == 404
    studio.wait(mine, "done")


@pytest.mark.parametrize(
    "settings",
    [
        {"init": "/etc/passwd"},
        {"init": "../../secret"},
        {"init": "photo.png"},
        {"weights": "/etc/passwd"},
        {"weights": "vgg19.pth"},
        {"snapshot_every": "1"},
        {"max_pixels": "1000000000000"},
        {"style_loss": "os:system"},
        {"device": "cuda; rm -rf /"},
    ],
)
def test_settings_name_no_files(shared: Studio, settings: dict[str, str]) -> None:
    run = shared.run_of()
    answer = shared.post("/api/jobs", json={**run, "settings": {**run["settings"], **settings}})
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]
    assert shared.get("/api/jobs").json() == {"jobs": []}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/api/pictures/..%2f..%2fsecret/preview",
        "/api/pictures/" + "a" * 15 + "%00/preview",
        "/api/jobs/..%2f..%2f..%2fsecret",
        "/secret",
    ],
)
def test_paths_stay_in_their_folder(shared: Studio, path: str) -> None:
    answer = shared.get(path)
    assert answer.status_code in (404, 422)
    assert b"import" not in answer.content
    assert shared.app.state.services.access.keys._secret not in answer.content


NAMES = ("../../x.png", "..\\..\\x.png", "/etc/x.png", "picture.json", ".hidden", "a" * 500, "é\n<b>.png", "CON")


def test_names_of_uploads(studio: Studio) -> None:
    root, before = Path(studio.app.state.services.store.folder), {("secret",)}
    for name in NAMES:
        identifier = studio.add(name=name)
        shown = studio.get(f"/api/pictures/{identifier}").json()["name"]
        assert "/" not in shown
        assert "\\" not in shown
        assert shown.isprintable()
        written = {path.relative_to(root).parts for path in root.rglob("*") if path.is_file()}
        added = written - before
        assert {(parts[0], *parts[2:4]) for parts in added} == {("visitors", "pictures", identifier)}
        assert len(added) == 3
        before = written


def test_headers_forbid_what_the_page_does_not_need(shared: Studio) -> None:
    for path in ("/", "/api/jobs", "/static/index.html", "/nothing"):
        headers = shared.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_large_bodies_are_refused(shared: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastnst.studio import guard, uploads

    monkeypatch.setattr(guard, "UPLOAD_BYTES", 10_000)
    monkeypatch.setattr(uploads, "UPLOAD_BYTES", 10_000)
    before = shared.get("/api/pictures").json()
    answer = shared.post("/api/pictures", files={"file": ("a.png", b"x" * 200_000)})
    assert (answer.status_code, answer.json()["error"]) == (413, "expected at most 75536 bytes")

    def chunks() -> object:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert shared.post("/api/pictures", content=chunks(), headers=kind).status_code in (400, 413)
    answer = shared.post("/api/pictures", files={"file": ("a.png", b"x" * 20_000)})
    assert (answer.status_code, answer.json()["error"]) == (422, "a.png: has 20000 bytes; expected at most 10000")
    assert (
        shared.post("/api/plan", content=b"[" * 2**21, headers={"content-type": "application/json"}).status_code == 413
    )
    assert shared.get("/api/pictures").json() == before


def test_a_file_that_ends_the_decoder_is_refused(shared: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fastnst.studio.inspector._do", end_process)
        answer = shared.post("/api/pictures", files={"file": ("a.png", picture())})
    assert answer.status_code == 422
    assert answer.json()["error"] == "a.png: cannot be decoded: it takes more memory or time than there is"
    assert shared.add(picture())


@pytest.mark.parametrize("noticed", [True, False])
def test_a_decoder_that_ended_before_is_replaced(shared: Studio, noticed: bool) -> None:
    """Killed by the system while nothing was asked of it, for example: no file is at fault."""
    inspector = shared.app.state.services.inspector
    inspector.names()
    pool = inspector._pool
    (process,) = pool._processes.values()
    process.kill()
    end = time.monotonic() + 60
    while noticed and not pool._broken:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert shared.add(picture())
    assert inspector._pool is not pool


def test_another_host_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--host 0\.0\.0\.0: other machines can reach it; expected a --token"):
        serve(tmp_path, host="0.0.0.0")
    with pytest.raises(UsageError, match="expected a --token of at least 16"):
        serve(tmp_path, host="0.0.0.0", token="short")
    with Studio(tmp_path, host="0.0.0.0", token="a long enough token") as studio:
        del studio.headers["authorization"]
        assert studio.get("/").status_code == 401
        assert studio.get("/", params={"token": "another token of many"}).status_code == 401
        answer = studio.get("/", params={"token": "a long enough token"}, follow_redirects=False)
        assert answer.status_code == 303
        key = cookie_of(answer)
        studio.cookies.clear()
        anywhere = {"host": "studio.example:7860", "cookie": f"fastnst_studio={key}"}
        assert studio.get("/api/jobs", headers=anywhere).status_code == 200
        assert studio.get("/api/jobs", headers={**anywhere, "origin": "http://studio.example:7860"}).status_code == 200
        assert studio.post("/api/demo", headers={**anywhere, "origin": "http://evil.example"}).status_code == 403


def test_one_studio_to_a_folder(tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / "lock"), pytest.raises(UsageError, match="another studio is using this folder"):
        serve(tmp_path, port=0)


def test_a_port_in_use(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=rf"--port {port}: cannot be used on 127\.0\.0\.1 \(Address already in use\)"
        ):
            serve(tmp_path, port=port)


def test_a_file_that_takes_too_long_is_refused(shared: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = shared.app.state.services.inspector
    inspector.names()
    with monkeypatch.context() as patch:
        patch.setattr(inspector, "_seconds", 0.0)
        answer = shared.post("/api/pictures", files={"file": ("a.png", picture(4, 2000, 2000))})
    assert answer.status_code == 422
    assert answer.json()["error"] == "a.png: cannot be decoded: it takes more memory or time than there is"
    assert shared.add(picture())
