"""Fetching one file from a server that breaks off, is slow, lies, refuses, or changes its mind."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.zoo.server import Fault, Server, serving

from zhbert.errors import ZhbertError
from zhbert.zoo import download
from zhbert.zoo.download import (
    NotThereError,
    UnreachableError,
    _Download,
    discard,
    fetch,
    folder_for,
    read_record,
)
from zhbert.zoo.progress import DownloadProgress

BODY = b"PK\x03\x04" + random.Random(0).randbytes(400_000)
OTHER = b"PK\x03\x04" + random.Random(1).randbytes(400_000)


class Seen(DownloadProgress):
    """Keeps what a bar would show."""

    def __init__(self) -> None:
        self.advances: list[tuple[str, int, int | None]] = []
        self.notes: list[str] = []

    def advance(self, stage: str, done: int, total: int | None) -> None:
        self.advances.append((stage, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


def refused(url: str, folder: Path, kind: type[ZhbertError] = ZhbertError) -> str:
    """The one line that an attempt ends in."""
    with pytest.raises(kind) as caught:
        fetch(url, folder)
    assert "\n" not in str(caught.value)
    assert url.partition("#")[0] in str(caught.value)
    return str(caught.value)


def test_a_file_arrives_and_is_recorded(server: Server, tmp_path: Path) -> None:
    url = server.add("/bert/model.zip", BODY)
    seen = Seen()
    path = fetch(url, tmp_path / "d", progress=seen)
    assert path == tmp_path / "d" / "model.zip"
    assert path.read_bytes() == BODY
    record = read_record(tmp_path / "d")
    assert record is not None
    assert (record.url, record.size) == (url, len(BODY))
    assert record.sha256 == sha256(BODY).hexdigest()
    assert seen.advances[-1] == ("downloading", len(BODY), len(BODY))
    assert sorted(p.name for p in path.parent.iterdir()) == ["lock", "model.zip", "record.json"]


def test_a_password_is_neither_shown_nor_written(server: Server, tmp_path: Path) -> None:
    private = server.add("/model.zip", BODY).replace("http://", "http://me:secret@")
    assert fetch(private, tmp_path).read_bytes() == BODY
    assert not any(b"secret" in p.read_bytes() for p in tmp_path.iterdir())
    with pytest.raises(NotThereError) as caught:
        fetch(private.replace("model", "missing"), tmp_path / "missing")
    assert "secret" not in str(caught.value)


def test_a_second_call_asks_nobody(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    fetch(url, tmp_path)
    fetch(url, tmp_path)
    assert len(server.requests) == 1


def test_what_broke_off_goes_on_where_it_was(
    server: Server, tmp_path: Path, waited: list[float]
) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(break_after=100_000), Fault(break_after=50_000)]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1].headers["If-Range"] == server.headers["/model.zip"]["ETag"]
    # Each attempt brought something: the waits start anew.
    assert waited == [1, 1]


def test_a_date_is_enough_to_go_on(server: Server, tmp_path: Path) -> None:
    date = formatdate(0, usegmt=True)
    url = server.add("/model.zip", BODY, **{"Last-Modified": date})
    server.headers["/model.zip"]["ETag"] = 'W/"weak"'
    server.faults = [Fault(break_after=100_000)]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-"]
    assert server.requests[1].headers["If-Range"] == date


def test_without_a_validator_it_begins_anew(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    del server.headers["/model.zip"]["ETag"]
    server.faults = [Fault(break_after=100_000)]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, None]


def test_a_server_that_ignores_range_begins_anew(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(break_after=100_000), Fault(ignore_range=True)]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-"]


def test_versions_are_not_mixed(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(break_after=100_000)
    server.faults = [Fault(break_after=100_000), *[Fault(status=503)] * 5]
    refused(url, tmp_path)
    server.add("/model.zip", OTHER)
    server.always = Fault()
    assert fetch(url, tmp_path).read_bytes() == OTHER


def test_versions_are_not_mixed_by_a_server_that_ignores_if_range(
    server: Server, tmp_path: Path
) -> None:
    url = server.add("/model.zip", BODY)
    etag = '"another"'
    server.faults = [
        Fault(break_after=100_000),
        # 206 with the bytes of another version.
        Fault(headers={"ETag": etag}),
    ]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", None]


def test_bytes_from_another_place_are_not_taken(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    size = len(BODY)
    wrong = {"Content-Range": f"bytes 100-{size - 1}/{size}"}
    server.faults = [Fault(break_after=100_000), Fault(headers=wrong)]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", None]


def test_a_server_that_sends_the_rest_in_parts(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(break_after=100_000), Fault(longer=-200_000)]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", "bytes=200004-"]


def test_the_bytes_are_asked_for_as_they_are(server: Server, tmp_path: Path) -> None:
    # Packed on the way, their count would say nothing about where to go on.
    fetch(server.add("/model.zip", BODY), tmp_path)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_an_encrypted_address_does_not_lead_to_an_open_one(tmp_path: Path) -> None:
    class Leading(requests.Session):
        def get(self, url: str | bytes, **_: object) -> requests.Response:
            answer = requests.Response()
            answer.url, answer.status_code = str(url), 302
            answer.headers["Location"] = "http://a.b/d.zip?token=secret"
            answer.close = lambda: None  # type: ignore[method-assign]
            return answer

    job = _Download("https://a.b/c.zip", tmp_path, DownloadProgress(), download.RETRY)
    with pytest.raises(ZhbertError, match="which is not encrypted") as caught:
        job.ask(Leading(), {})
    assert "secret" not in str(caught.value)


def test_416_means_done_or_another_file(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    # The server promised more than there is: asked for the rest, it says how long the file is.
    server.faults = [Fault(longer=1000)]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={len(BODY)}-"]

    url = server.add("/other.zip", BODY)
    server.faults = [Fault(break_after=100_000), Fault(status=416, headers={"Content-Length": "0"})]
    assert fetch(url, tmp_path / "other").read_bytes() == BODY
    assert server.ranges()[2:] == [None, "bytes=100000-", None]


def test_a_length_that_is_a_lie_throughout_is_refused(
    server: Server, tmp_path: Path, waited: list[float]
) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(longer=1000, ignore_range=True)
    said = "the connection broke off, 5 times in a row; 400,004 of 401,004 bytes are here"
    assert said in refused(url, tmp_path)
    assert waited == [1, 2, 4, 8]
    assert not (tmp_path / "model.zip").exists()


def test_a_length_that_is_too_short_never_passes_for_the_whole(
    server: Server, tmp_path: Path
) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(longer=-300_000)]
    # HTTP ends a body at its Content-Length: only a checksum, or the archive itself, can tell.
    with pytest.raises(ZhbertError, match="SHA-256"):
        fetch(f"{url}#sha256={sha256(BODY).hexdigest()}", tmp_path)
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_no_length_at_all_is_fine(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(headers={"Content-Length": None})]
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_503_is_asked_again_after_the_time_it_names(
    server: Server, tmp_path: Path, waited: list[float]
) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=429, headers={"Retry-After": formatdate(time.time() + 60, usegmt=True)}),
        Fault(status=500),
        Fault(status=502, headers={"Retry-After": "soon"}),
    ]
    seen = Seen()
    assert fetch(url, tmp_path, progress=seen).read_bytes() == BODY
    assert waited[0] == 7
    assert 55 < waited[1] <= 60
    assert waited[2:] == [4, 8]
    assert seen.notes[0] == "the server answers 503 Service Unavailable; trying again in 7 s"


@pytest.mark.parametrize(
    "asked",
    ["", "soon", "-5", "1e5", "٣x", "Fri, 31 Dec 99999999999 23:59:59 GMT", "Fri, 31 Dec 1 0:0:0"],
)
def test_a_wait_that_is_none_is_not_heard(
    asked: str, server: Server, tmp_path: Path, waited: list[float]
) -> None:
    url = server.add("/model.zip", BODY)
    # The server closes; a client that did not know would ask once more on the dead connection.
    closed = "Connection: close\r\nContent-Length: 0\r\n\r\n"
    raw = f"HTTP/1.1 503 Busy\r\nRetry-After: {asked}\r\n{closed}"
    server.faults = [Fault(raw=raw.encode())]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert waited in ([1], [0])


def test_a_server_that_stays_down_is_said(
    server: Server, tmp_path: Path, waited: list[float]
) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(status=504)
    assert "answers 504 Gateway Timeout, 5 times in a row" in refused(url, tmp_path)
    assert waited == [1, 2, 4, 8]


def test_a_wait_that_is_too_long_is_left_to_the_user(
    server: Server, tmp_path: Path, waited: list[float]
) -> None:
    url = server.add("/model.zip", BODY)
    for asked, said in (("3600", "3,600"), ("9" * 400, "inf"), (formatdate(2e11), ",")):
        server.always = Fault(status=429, headers={"Retry-After": asked})
        assert f"asks to wait {said}" in refused(url, tmp_path) or said == ","
    assert waited == []


@pytest.mark.parametrize("status", [404, 410, 403, 401, 400])
def test_refusals_are_not_asked_again(status: int, server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(status=status)
    assert str(status) in refused(url, tmp_path, NotThereError)
    assert len(server.requests) == 1
    assert not list(tmp_path.glob("model*"))


def test_a_web_page_is_no_archive(server: Server, tmp_path: Path) -> None:
    for page in (b"<!DOCTYPE html><html>", b"\xef\xbb\xbf \n<HTML><body>log in", b"<?xml v"):
        url = server.add("/model.zip", page + b" " * 100_000)
        assert "a web page came where an archive was expected" in refused(url, tmp_path)
        assert not list(tmp_path.glob("model*"))


def test_a_slow_server_is_waited_for(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY[:100_000])
    server.faults = [Fault(pause=0.1)]  # seven pieces; each comes within the limit of 0.5 s
    assert fetch(url, tmp_path).read_bytes() == BODY[:100_000]
    assert server.ranges() == [None]


def test_a_server_that_stops_sending_is_asked_again(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(stall_after=131_072)]
    seen = Seen()
    assert fetch(url, tmp_path, progress=seen).read_bytes() == BODY
    assert seen.notes == ["the server has stopped sending; trying again in 1 s"]
    assert server.ranges() == [None, "bytes=131072-"]


# --- servers that mean no good -------------------------------------------------------------------


def quick(**changes: Any) -> download.RetryPolicy:
    """The policy of these tests, changed."""
    return dataclasses.replace(download.RETRY, **changes)


def test_a_server_that_drips_is_left_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(stall_after=100_000)]
    # The clock stands still for three pieces; then each look at it is two minutes later.
    clock = itertools.chain([0.0] * 4, itertools.count(120, 120))
    policy = quick(clock=clock.__next__, slowest=1e6)
    with pytest.raises(ZhbertError, match="fewer than 1,000,000 bytes a second") as caught:
        fetch(url, tmp_path, policy=policy)
    assert " of 400,004 bytes are here and kept; run the same command again" in str(caught.value)
    kept = (tmp_path / "model.zip.part").stat().st_size
    assert kept
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={kept}-"]


def test_headers_that_do_not_end_are_not_waited_for(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(raw=b"HTTP/1.1 200 OK\r\nX: 1\r\n", stall_after=100)
    policy = quick(answer=0.05, waits=())
    with pytest.raises(ZhbertError, match="no answer within 0 seconds, 1 times in a row"):
        fetch(url, tmp_path, policy=policy)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + BODY, "what is not HTTP"),
        (b"Transfer-Encoding: chunked\r\n\r\n-5\r\n" + BODY, "what is not HTTP"),
        (b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 100_000, "what is not HTTP"),
        (b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFF\r\n" + BODY, "broke off"),
        (b"Transfer-Encoding: chunked\r\n\r\nx\r\n" + BODY, "broke off"),
        (b"X: 1\r\n" * 500 + b"\r\n" + BODY, "broke off"),
        (b"X: " + b"1" * 100_000 + b"\r\n\r\n" + BODY, "broke off"),
        (b"Content-Length: 99999999999999999\r\n\r\n" + BODY, "more than 68,719,476,736 bytes"),
    ],
    ids=["-1", "-5", "endless line", "huge", "no number", "many", "long", "petabytes"],
)
def test_frames_that_lie_are_refused(raw: bytes, said: str, server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(raw=b"HTTP/1.1 200 OK\r\n" + raw)
    assert said in refused(url, tmp_path)
    assert not (tmp_path / "model.zip").exists()


@pytest.mark.parametrize("length", [b"-5", b"9" * 5000, "٣".encode(), b"x"])
def test_a_length_that_is_none_is_as_good_as_none(
    length: bytes, server: Server, tmp_path: Path
) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [
        Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n" + BODY)
    ]
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_more_than_was_announced_is_not_taken(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.always = Fault(raw=head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert "sends more than the 1,000 bytes it announced" in refused(url, tmp_path)
    assert not list(tmp_path.glob("model*"))


def test_a_body_without_an_end_is_cut(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(headers={"Content-Length": None})
    with pytest.raises(ZhbertError, match="more than 100,000 bytes: no archive of a model"):
        fetch(url, tmp_path, policy=quick(largest=100_000))
    assert not list(tmp_path.glob("model*"))


def test_redirections_are_followed_and_their_bodies_are_not_read(
    server: Server, tmp_path: Path
) -> None:
    url = server.add("/model.zip", BODY)
    # The answer that leads on never ends: whoever reads it waits.
    head = b"HTTP/1.1 302 Found\r\nLocation: other.zip?x=1\r\n\r\n"
    server.add("/other.zip?x=1", BODY)
    server.faults = [Fault(raw=head + b"x" * 5000, stall_after=len(head) + 5000)]
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_redirections_in_a_ring_are_refused(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(status=302, headers={"Location": "/model.zip?token=secret"})
    message = refused(url, tmp_path)
    assert "more than 10 redirections, the last to" in message
    assert "secret" not in message
    assert len(server.requests) == 10


def test_what_is_no_http_is_said(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    for raw in (b"", b"SSH-2.0-OpenSSH\r\n", b"\0" * 70_000, b"HTTP/1.1 abc\r\n\r\n"):
        server.always = Fault(raw=raw)
        assert "broke off" in refused(url, tmp_path)


@pytest.mark.parametrize("etag", ["\x1b[2J", "é", "x" * 300])
def test_a_validator_is_sent_back_or_not_used(etag: str, server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.headers["/model.zip"]["ETag"] = f'"{etag}"'
    server.faults = [Fault(break_after=100_000)]
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_no_connection_names_the_host_and_the_reason(tmp_path: Path, waited: list[float]) -> None:
    with serving() as server:
        url = f"{server.url}/model.zip"
    assert "no connection to 127.0.0.1 (connection refused)" in refused(
        url, tmp_path, UnreachableError
    )
    assert waited == [1, 2, 4, 8]


def test_a_name_that_nobody_knows_is_said(tmp_path: Path) -> None:
    # .invalid is reserved: it never resolves, with or without a network.
    message = refused("https://zhbert.invalid/model.zip", tmp_path, UnreachableError)
    assert "no connection to zhbert.invalid" in message


def test_the_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    # A proxy is asked for the whole address.
    server.add("http://zhbert.invalid/model.zip", BODY)
    assert fetch("http://zhbert.invalid/model.zip", tmp_path).read_bytes() == BODY
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert "the proxy does not answer" in refused("http://zhbert.invalid/x.zip", tmp_path / "x")


def test_addresses_that_are_none(tmp_path: Path) -> None:
    assert "not an address" in refused("http://[", tmp_path)
    with pytest.raises(ZhbertError, match="64 hex digits"):
        fetch("https://a/b.zip#sha256=12", tmp_path)


# --- checksums ----------------------------------------------------------------------------------


def test_a_published_checksum_is_held_against_the_file(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    good, bad = sha256(BODY).hexdigest(), sha256(OTHER).hexdigest()
    assert f"the published one is {bad}" in refused(f"{url}#sha256={bad}", tmp_path)
    assert not list(tmp_path.glob("model*"))
    assert fetch(f"{url}#sha256={good.upper()}", tmp_path).read_bytes() == BODY
    # Also where the file is in the cache already.
    assert "SHA-256" in refused(f"{url}#sha256={bad}", tmp_path)
    assert folder_for(url, tmp_path) == folder_for(f"{url}#sha256={good}", tmp_path)


def test_a_cached_file_that_was_changed_is_fetched_again(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    path = fetch(url, tmp_path)
    path.write_bytes(OTHER)
    seen = Seen()
    assert fetch(url, tmp_path, progress=seen).read_bytes() == BODY
    assert "is not what was downloaded" in seen.notes[0]


def test_another_file_than_the_recorded_one_is_refused(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    path = fetch(url, tmp_path)
    path.unlink()
    server.add("/model.zip", OTHER)
    message = refused(url, tmp_path)
    assert "not the file that was fetched on" in message
    assert str(tmp_path / "record.json") in message
    assert not path.exists()
    discard(tmp_path)
    assert fetch(url, tmp_path).read_bytes() == OTHER


def test_a_record_that_is_damaged_counts_for_nothing(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    fetch(url, tmp_path)
    record = (tmp_path / "record.json").read_text()
    lies = [record.replace(sha256(BODY).hexdigest(), "../../x"), record.replace(": 4", ': "4"')]
    for text in ("", "[]", "{}", '{"url": 1', "[" * 100_000, "\ud800", *lies):
        (tmp_path / "record.json").write_bytes(text.encode(errors="surrogatepass"))
        assert fetch(url, tmp_path).read_bytes() == BODY
        assert read_record(tmp_path) is not None


def test_a_damaged_state_begins_anew(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    for text in ("", "[]", "{}"):
        (tmp_path / "model.zip.part").write_bytes(OTHER[:5000])
        (tmp_path / "model.zip.part.json").write_text(text)
        assert fetch(url, tmp_path).read_bytes() == BODY
        discard(tmp_path)


# --- interruptions ------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_the_rest_follows_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("/model.zip", BODY)
    real = Path.open

    class Full:
        """A file on a disk with room for 100,000 bytes."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            if self.file.tell() + len(data) > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(data)

        def seek(self, position):
            return self.file.seek(position)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    def full(path, *arguments, **options):
        file = real(path, *arguments, **options)
        return Full(file) if path.suffix == ".part" else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        assert "the disk is full; free some space" in refused(url, tmp_path)
    kept = (tmp_path / "model.zip.part").stat().st_size
    assert 0 < kept <= 100_000
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={kept}-"]


PROGRAM = """
    import sys
    from pathlib import Path
    from zhbert.zoo.download import fetch
    from zhbert.zoo.progress import DownloadProgress

    class Said(DownloadProgress):
        def advance(self, stage, done, total):
            print(done, flush=True)

    fetch(sys.argv[1], Path(sys.argv[2]), progress=Said())
"""


def start(url: str, folder: Path) -> subprocess.Popen[str]:
    """A process that fetches, saying how far it is."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), url, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_keeps_what_has_come(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(stall_after=200_000)]
    with start(url, tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 131_072:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    kept = (tmp_path / "model.zip.part").stat().st_size
    assert kept >= 131_072
    assert not (tmp_path / "model.zip").exists()
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={kept}-"]


def test_a_killed_process_harms_nothing(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(stall_after=200_000)]
    with start(url, tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_two_processes_fetch_once(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(pause=0.02)]
    with start(url, tmp_path) as one, start(url, tmp_path) as other:
        said = [process.communicate(timeout=60) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], said
    assert len(server.requests) == 1
    assert (tmp_path / "model.zip").read_bytes() == BODY


def test_two_threads_fetch_once(server: Server, tmp_path: Path) -> None:
    url = server.add("/model.zip", BODY)
    server.faults = [Fault(pause=0.01)]
    seen = Seen()
    threads = [
        threading.Thread(target=fetch, args=(url, tmp_path), kwargs={"progress": seen})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert any("another process is fetching" in note for note in seen.notes)


def test_the_policy_is_an_argument(server: Server, tmp_path: Path, waited: list[float]) -> None:
    url = server.add("/model.zip", BODY)
    server.always = Fault(status=503)
    policy = dataclasses.replace(download.RETRY, waits=(3,))
    with pytest.raises(ZhbertError, match="2 times in a row"):
        fetch(url, tmp_path, policy=policy)
    assert waited == [3]


def test_names_from_addresses_stay_in_the_folder(server: Server, tmp_path: Path) -> None:
    for number, path in enumerate(("/a/..%2Fb", "/%2e%2e", "/", "/中 文.zip", "/.x?y=/../z")):
        server.add(path.replace("%2F", "/").replace("%2e", "."), BODY)
        folder = tmp_path / str(number) / "inside"
        file = fetch(server.url + path, folder)
        assert file.parent == folder
        assert not file.name.startswith(".")
        assert file.read_bytes() == BODY
        assert [p.name for p in folder.parent.iterdir()] == ["inside"]
        assert json.loads((folder / "record.json").read_text())["size"] == len(BODY)
