"""Downloads over HTTP, resumed after interruptions and verified when complete."""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, read_json, sha256_of, write_json
from zhbert.schema import build
from zhbert.signatures import looks_like_a_page
from zhbert.wording import without_secrets
from zhbert.zoo.progress import DownloadProgress

if TYPE_CHECKING:
    from requests import Response, Session

# Bytes written at a time: small, so that little is lost when a slow server breaks off.
_BLOCK = 1 << 13
_REDIRECTS = 10
# The limit, in bytes, of a line between chunks of a body; it normally has a few hex digits.
_LONGEST_LINE = 1 << 12

_NO_HTTP = "the server sends what is not HTTP"

_Note = TypeVar("_Note")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The conditions, number and delays of repeated attempts, and the limits of a download."""

    # Seconds before each further attempt. After an attempt that received new bytes, the count
    # starts again, so that a large file can be downloaded over a bad connection.
    waits: tuple[float, ...] = (1, 2, 4, 8)
    # The limit, in seconds, of a delay that the server requests (Retry-After).
    longest_wait: float = 120
    statuses: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    # Seconds for connecting, and between two parts of the response.
    timeouts: tuple[float, float] = (10, 30)
    # Seconds until the body begins, including redirections and slow headers.
    answer: float = 120
    # The minimum speed in bytes per second, and the period in seconds over which it is measured.
    slowest: float = 1000
    window: float = 60
    # The limit of a file in bytes; the largest published archive has 1.3 GB.
    largest: int = 64 << 30
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


RETRY = RetryPolicy()


@dataclass(frozen=True)
class DownloadRecord:
    """Size and checksum of a file when it was first downloaded, to compare later copies with."""

    url: str
    size: int  # bytes
    sha256: str
    fetched: str  # UTC


@dataclass(frozen=True)
class _State:
    """The server's metadata of a partially downloaded file."""

    validator: str | None = None  # a strong ETag or a date, different for each version of the file
    total: int | None = None  # bytes


class UnreachableError(ZhbertError):
    """The error of a missing connection; cached models can still be used."""


class NotThereError(ZhbertError):
    """The error of a file that the server does not have or does not permit."""


class _SlowError(Exception):
    """The error of a server that sends too slowly."""


class _BrokenError(Exception):
    """The error of an attempt that may be repeated; ``wait``: seconds requested by the server."""

    def __init__(self, why: str, wait: float | None = None, *, connection: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait
        self.connection = connection


def folder_for(url: str, cache: Path) -> Path:
    """Return the cache folder for a URL; user name and password in the URL are ignored."""
    address = split_checksum(url)[0]
    place = urlsplit(address).netloc
    address = address.replace(place, place.rpartition("@")[2], 1)
    return cache / "downloads" / hashlib.sha256(address.encode()).hexdigest()[:32]


def read_record(folder: Path) -> DownloadRecord | None:
    """Read the record in a download's folder; return None if it is missing or damaged."""
    record = _noted(folder / "record.json", DownloadRecord)
    # Checked because its first digits become the name of a cache folder.
    return record if record and re.fullmatch("[0-9a-f]{64}", record.sha256) else None


def _noted(path: Path, kind: type[_Note]) -> _Note | None:
    """Read a JSON file of the cache as a ``kind``; return None if it is missing or damaged."""
    try:
        values = read_json(path, dict)
        return build(kind, {k: v for k, v in values.items() if v is not None}, "", str(path))
    except ZhbertError:
        return None


def discard(folder: Path) -> None:
    """Remove a damaged download and its record, so that it is downloaded again next time."""
    record = read_record(folder)
    (folder / "record.json").unlink(missing_ok=True)
    if record:
        (folder / _file_name(record.url)).unlink(missing_ok=True)


def fetch(
    url: str,
    folder: Path,
    *,
    progress: DownloadProgress | None = None,
    policy: RetryPolicy | None = None,
) -> Path:
    """Return the path of the file at ``url``, downloaded into ``folder`` unless it is there.

    Size and SHA-256 are recorded by the first download and verified by every call. ``url`` may end
    in ``#sha256=...``, a published checksum. An interrupted download is resumed by the next call.
    Processes that download the same file wait for each other.

    Raises:
        UnreachableError: there is no connection.
        ZhbertError: the server does not have the file or sends another one, or the disk is full.
    """
    progress = progress or DownloadProgress()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", f"fetching {without_secrets(url)}", progress):
            return _Download(url, folder, progress, policy or RETRY).run()
    except OSError as error:
        raise describe_os_error(
            error, f"downloading {without_secrets(url)} into {folder}"
        ) from None


@contextmanager
def locked(file: Path, doing: str, progress: DownloadProgress) -> Iterator[None]:
    """Hold a lock file; if another process has it, print a note and wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress.note(f"another process is {doing}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def split_checksum(url: str) -> tuple[str, str | None]:
    """Split a URL into the address and the checksum in its fragment, or None."""
    address, _, fragment = url.partition("#")
    try:
        host = urlsplit(address).hostname
    except ValueError:
        host = None
    if not host:
        raise ZhbertError(f"{url}: not an address; it begins with https:// and a host's name")
    if not fragment:
        return address, None
    if not (found := re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)):
        raise ZhbertError(
            f"{url}: after # stands a checksum (sha256= and 64 hex digits), or nothing"
        )
    return address, found[1].lower()


def _file_name(url: str) -> str:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", name)[-100:].lstrip(".") or "archive"


class _Download:
    """A download into ``NAME.part``, with ``NAME.part.json`` beside it; renamed at the end."""

    def __init__(
        self, url: str, folder: Path, progress: DownloadProgress, policy: RetryPolicy
    ) -> None:
        self.url, self.published = split_checksum(url)
        self.shown = without_secrets(self.url)
        self.file = folder / _file_name(self.url)
        self.part = folder / f"{self.file.name}.part"
        self.state = folder / f"{self.file.name}.part.json"
        self.record_file = folder / "record.json"
        self.record = read_record(folder)
        self.progress = progress
        self.policy = policy

    def run(self) -> Path:
        if self.record and self.file.exists():
            if self.published not in (None, self.record.sha256):
                raise self.mismatch(self.record.sha256)
            size = self.file.stat().st_size
            if size == self.record.size and sha256_of(self.file) == self.record.sha256:
                return self.file
            self.progress.note(f"{self.file} is not what was downloaded; fetching it again")
            self.file.unlink()
        self.obtain()
        self.accept()
        return self.file

    # --- attempts -------------------------------------------------------------------------------

    def obtain(self) -> None:
        """Repeat attempts until ``part`` is complete; raise ZhbertError after the last one."""
        furthest, failures = self.arrived(), 0
        while True:
            try:
                self.attempt()
                return
            except _BrokenError as broken:
                if self.arrived() > furthest:
                    furthest, failures = self.arrived(), 0
                if failures == len(self.policy.waits):
                    raise self.given_up(broken) from None
                wait = self.policy.waits[failures] if broken.wait is None else broken.wait
                if wait > self.policy.longest_wait:
                    raise ZhbertError(
                        f"{self.shown}: {broken.why} and asks to wait {wait:,.0f} seconds; "
                        "run the same command again then"
                    ) from None
                failures += 1
                self.progress.note(f"{broken.why}; trying again in {wait:.0f} s")
                self.policy.sleep(wait)

    def arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> None:
        """Request the missing bytes once and write them to ``part``."""
        import requests
        import urllib3

        state = self.read_state()
        # Without a validator, the rest of the file might belong to another version.
        offset = self.arrived() if state.validator else 0
        if offset and offset == state.total:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": "zhbert"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": state.validator or ""}
        try:
            with requests.Session() as session:
                answer = _within(self.policy.answer, lambda: self.ask(session, headers))
                with answer as response:
                    self.receive(response, offset, state)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ZhbertError(
                    f"{self.shown}: the server's certificate is not trusted; if your network has "
                    "its own, set REQUESTS_CA_BUNDLE to its file"
                ) from None
            raise _failed(error) from None
        except requests.exceptions.InvalidHeader:
            raise _BrokenError(_NO_HTTP) from None
        except requests.RequestException as error:
            raise ZhbertError(f"{self.shown}: not an address to fetch from ({error})") from None
        except _SlowError:
            raise ZhbertError(
                f"{self.shown}: the server sends fewer than {self.policy.slowest:,.0f} bytes a "
                f"second{self.kept()}; run the same command again later, or take another address"
            ) from None

    def ask(self, session: Session, headers: Mapping[str, str]) -> Response:
        """Follow redirections and return the final response, with its body unread."""
        # requests would read the bodies of the redirecting responses, whatever their length.
        session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
        url = self.url
        for _ in range(_REDIRECTS):
            if self.url.startswith("https:") and not url.startswith("https:"):
                raise ZhbertError(f"{self.shown}: leads to {url}, which is not encrypted")
            response = session.get(url, headers=headers, stream=True, timeout=self.policy.timeouts)
            if not response.is_redirect:
                return response
            response.close()
            url = urljoin(response.url, response.headers["Location"])
        raise ZhbertError(f"{self.shown}: more than {_REDIRECTS} redirections, the last to {url}")

    def receive(self, response: Response, offset: int, state: _State) -> None:
        """Check the response and write its body, from ``offset`` or from the beginning."""
        start, total = _content_range(response.headers.get("Content-Range", ""))
        if offset and response.status_code == 416 and total == offset:
            return
        self.check_answer(response, offset, start, state)
        if response.status_code == 200:
            offset = 0
            total = _number(response.headers.get("Content-Length", ""))
        self.check_size(total or 0)
        offset = self.write(response, offset, total)
        if total is not None and offset > total:
            self.remove_part()
            raise _BrokenError(f"the server sends more than the {total:,} bytes it announced")
        if total is not None and offset != total:
            raise _BrokenError(f"the connection broke off at {offset:,} of {total:,} bytes")

    def check_answer(
        self, response: Response, offset: int, start: int | None, state: _State
    ) -> None:
        """Raise an error unless the response has the whole file or its bytes from ``offset`` on."""
        status = response.status_code
        if offset and (
            status == 416
            or (status == 206 and start != offset)
            or (status == 206 and _validator(response) not in (None, state.validator))
        ):
            self.part.unlink()
            raise _BrokenError("the file on the server is another one now", wait=0)
        if status in self.policy.statuses:
            raise _BrokenError(
                f"the server answers {status} {response.reason}", retry_after(response.headers)
            )
        if status != 200 and not (status == 206 and offset):
            raise NotThereError(f"{self.shown}: {_refusal(response)}")

    def write(self, response: Response, offset: int, total: int | None) -> int:
        """Write the body to ``part`` from ``offset`` on; return the offset of its end."""
        with self.part.open("r+b" if offset else "wb") as file:
            if not offset:
                # Written after emptying the part, whose bytes may belong to another version.
                write_json(self.state, asdict(_State(_validator(response), total)))
            file.seek(offset)
            for block in _body(response, self.policy):
                if not offset and looks_like_a_page(block):
                    self.remove_part()
                    raise ZhbertError(
                        f"{self.shown}: a web page came where an archive was expected; open the "
                        "address in a browser to see what it says (a log-in? a moved file?)"
                    )
                offset += file.write(block)
                self.check_size(offset)
                if total is not None and offset > total:
                    break
                self.progress.advance("downloading", offset, total)
        return offset

    def check_size(self, size: int) -> None:
        """Raise ZhbertError if a file is larger than any archive of a model."""
        if size > self.policy.largest:
            self.remove_part()
            raise ZhbertError(
                f"{self.shown}: more than {self.policy.largest:,} bytes: no archive of a model"
            )

    def read_state(self) -> _State:
        return _noted(self.state, _State) or _State()

    # --- the end --------------------------------------------------------------------------------

    def accept(self) -> None:
        """Verify the file, write its record and rename ``part``."""
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        sha256, size = sha256_of(self.part), self.arrived()
        if self.published not in (None, sha256):
            self.remove_part()
            raise self.mismatch(sha256)
        if self.record and self.record.sha256 != sha256:
            self.remove_part()
            raise ZhbertError(
                f"{self.shown}: not the file that was fetched on {self.record.fetched[:10]} "
                f"(SHA-256 {sha256[:12]}..., was {self.record.sha256[:12]}...); if it was replaced "
                f"on purpose, delete {self.record_file}"
            )
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(
            self.record_file, asdict(self.record or DownloadRecord(self.shown, size, sha256, now))
        )
        self.part.replace(self.file)
        self.state.unlink(missing_ok=True)

    def remove_part(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def mismatch(self, sha256: str) -> ZhbertError:
        return ZhbertError(
            f"{self.shown}: its SHA-256 is {sha256}, the published one is {self.published}: "
            "damaged or replaced, and not used"
        )

    def given_up(self, broken: _BrokenError) -> ZhbertError:
        attempts = len(self.policy.waits) + 1
        if broken.connection:
            host = urlsplit(self.url).hostname
            return UnreachableError(f"{self.shown}: no connection to {host} ({broken.why})")
        return ZhbertError(
            f"{self.shown}: {broken.why}, {attempts} times in a row{self.kept()}; run the same "
            "command again later"
        )

    def kept(self) -> str:
        """Return how many bytes are kept for the next call, as the end of an error message."""
        state = self.read_state()
        of = f" of {state.total:,}" if state.total else ""
        there = self.arrived() and state.validator
        return f"; {self.arrived():,}{of} bytes are here and kept" if there else ""


# --- what servers send --------------------------------------------------------------------------


def _within(seconds: float, ask: Callable[[], _Result]) -> _Result:
    """Call ``ask`` in a thread; return or raise its result, or an error after ``seconds``."""
    answer: Future[_Result] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([answer], seconds).done:
        raise _BrokenError(f"no answer within {seconds:,.0f} seconds")
    return answer.result()


def _body(response: Response, policy: RetryPolicy) -> Iterator[bytes]:
    """Yield the parts of a response's body as they arrive."""
    raw: Any = response.raw
    file: Any = getattr(raw, "_fp", None)
    if hasattr(file, "fp"):
        # Replaced because http.client and urllib3 would read lines and chunks of any length.
        file.fp = _Wire(file.fp, policy)
    try:
        yield from raw.stream(_BLOCK, decode_content=False)
    except ValueError:
        raise _BrokenError(_NO_HTTP) from None


class _Wire:
    """A connection's file object that raises if a line is too long or bytes arrive too slowly."""

    def __init__(self, file: IO[bytes], policy: RetryPolicy) -> None:
        self.file: Any = file
        self.policy = policy
        self.begun = policy.clock()
        self.come = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes, or fewer at the end of the stream."""
        if size < 0:
            raise ValueError("a piece of a length below 0")
        pieces = []
        while size and (piece := self.file.read1(size)):
            pieces.append(piece)
            size -= len(piece)
            self.note(len(piece))
        return b"".join(pieces)

    def readline(self, limit: int = -1) -> bytes:
        """Read a line between two chunks of the body."""
        line = b""
        while not line.endswith(b"\n") and (seen := self.file.peek(1)):
            line += self.file.read1(seen.find(b"\n") + 1 or len(seen))
            self.note(len(line))
            if len(line) > _LONGEST_LINE:
                raise ValueError("a line without an end")
        return line

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or a part of it at the end of the stream; return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def note(self, count: int) -> None:
        """Count bytes; raise _SlowError if there are too few for the time that has passed."""
        self.come += count
        now = self.policy.clock()
        if now - self.begun >= self.policy.window:
            if self.come < self.policy.slowest * (now - self.begun):
                raise _SlowError
            self.begun, self.come = now, 0


# --- what answers say ---------------------------------------------------------------------------


def _validator(response: Response) -> str | None:
    """Return an identifier of a file's version: a strong ETag, or else its modification date."""
    etag: str = response.headers.get("ETag", "")
    found = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    # The value is sent back in a header, in which requests refuses other characters.
    return found if found and found.isascii() and found.isprintable() else None


def _content_range(header: str) -> tuple[int | None, int | None]:
    """Parse ``bytes 100-199/200`` or ``bytes */200`` into the first byte and the total length."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", header.strip())
    return (_number(found[1] or ""), _number(found[2])) if found else (None, None)


def _number(text: str) -> int | None:
    """Parse a number of bytes sent by a server; return None if it is invalid or absurd."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text.strip()) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait according to Retry-After, which is a number or a date.

    >>> retry_after({"Retry-After": "7"}), retry_after({})
    (7.0, None)
    """
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _refusal(response: Response) -> str:
    status = response.status_code
    if status in (404, 410):
        return (
            f"not there (the server answers {status}); check the address, or take another model: "
            "'zhbert models' lists them"
        )
    if status in (401, 403):
        return (
            f"the server refuses it ({status}); fetch it with a browser where you are allowed to, "
            "and give the file"
        )
    return f"the server answers {status} {response.reason}; try it in a browser"


# The class name of an error of urllib3 or requests -> its meaning.
_CAUSES = {
    "NameResolutionError": "the host's name is not found",
    "ConnectTimeoutError": "the host does not answer",
    "ProxyError": "the proxy does not answer: see HTTPS_PROXY",
    "SSLError": "the encrypted connection failed",
}


def _failed(error: Exception) -> _BrokenError:
    """Return the cause of a failed request, and whether it is a missing connection."""
    cause = getattr(error.args[0], "reason", error) if error.args else error
    name = type(cause).__name__
    if name in _CAUSES:
        return _BrokenError(_CAUSES[name], connection=True)
    if name == "NewConnectionError":
        # "...: Failed to establish a new connection: [Errno 111] Connection refused"
        return _BrokenError(re.split(r"[:\]] ", str(cause))[-1].lower(), connection=True)
    if "timed out" in str(cause):
        return _BrokenError("the server has stopped sending")
    return _BrokenError("the connection broke off")
