"""Models on the Hugging Face hub: downloading the necessary files into huggingface_hub's cache."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, read_json
from zhbert.zoo import download
from zhbert.zoo.download import UnreachableError
from zhbert.zoo.layout import (
    MODULES,
    PYTORCH,
    SAFETENSORS,
    find_model,
    read_module_entries,
    shards_of,
)
from zhbert.zoo.origin import HubOptions
from zhbert.zoo.progress import DownloadProgress

# Seconds to wait for a connection.
_PATIENCE = 3
CONFIGS = ("config.json", "bert_config.json")
# Only the first existing one is downloaded: all contain the same tensors.
WEIGHTS = (*SAFETENSORS, *PYTORCH)
TOKENIZER = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
SENTENCE_CONFIGS = ("config_sentence_transformers.json", "sentence_bert_config.json")

MIRROR = "https://hf-mirror.com"
"""The common mirror in China."""


def asks_the_hub_itself() -> bool:
    """Return True if huggingface.co is used, and not a mirror (HF_ENDPOINT) or only the cache."""
    from huggingface_hub import constants

    return "huggingface.co" in constants.ENDPOINT and not constants.HF_HUB_OFFLINE


class _Model(NamedTuple):
    hub_id: str
    options: HubOptions

    def cached(self, name: str, commit: str | None) -> Any:
        """Return the path in the cache, a marker that there is no such file, or None (unknown)."""
        import huggingface_hub

        return huggingface_hub.try_to_load_from_cache(
            self.hub_id, name, cache_dir=self.options.cache_dir, revision=commit
        )


def fetch_files(
    hub_id: str,
    options: HubOptions | None = None,
    *,
    progress: DownloadProgress | None = None,
    quiet: bool = True,
) -> list[Path]:
    """Download a model and return its files, all in one folder of the hub's cache.

    Cached files are downloaded again only if the hub has a newer version; without a connection
    they are used as they are. HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME are respected.

    Raises:
        UnreachableError: the model is not cached, and the hub cannot be reached.
        ZhbertError: the model does not exist, is not accessible, or has no supported weights.
    """
    options = options or HubOptions()
    model = _Model(hub_id, options)
    with one_line(_explained, hub_id), silent(progress or DownloadProgress(), quiet):
        config = next(filter(None, (_file(model, n, options.revision) for n in CONFIGS)), None)
        if config is None:
            raise ZhbertError(f"{hub_id}: no config.json on the hub: not a model for zhbert")
        # All files are taken from one version, even if a new one is uploaded meanwhile.
        commit = config.parent.name
        weights = _first_of(model, WEIGHTS, commit)
        if weights is None:
            raise ZhbertError(
                f"{hub_id}: no {SAFETENSORS[0]} and no {PYTORCH[0]} on the hub; its author may "
                "have published another format only"
            )
        files = [config, weights]
        for name in shards_of(weights):
            shard = _file(model, name, commit)
            if shard is None:
                raise ZhbertError(f"{hub_id}: {weights.name} names {name}, which is not on the hub")
            files.append(shard)
        return files + _tokenizer_files(model, commit) + _module_files(model, commit)


def cached_hub_ids() -> list[str]:
    """Return the ids of models that are complete in the hub's cache and supported by zhbert."""
    from huggingface_hub import constants

    found = []
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        try:
            commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
            model = find_model(folder / "snapshots" / commit)
            missing = [
                name for name in shards_of(model.weights) if not (model.folder / name).exists()
            ]
            config = read_json(model.config or Path(), dict)
        except (OSError, ValueError, ZhbertError):
            continue
        if not missing and config.get("model_type", "bert") == "bert":
            found.append("/".join(folder.name.split("--", 2)[1:]))
    return found


def _tokenizer_files(model: _Model, commit: str) -> list[Path]:
    from huggingface_hub.errors import LocalEntryNotFoundError

    files, unknown = [], None
    for name in TOKENIZER:
        try:
            if (file := _file(model, name, commit)) is not None:
                files.append(file)
        except LocalEntryNotFoundError as error:
            unknown = error
    # Without a connection the model's list of files is unknown. One of these two contains the
    # vocabulary and is sufficient.
    if unknown and not {"vocab.txt", "tokenizer.json"} & {file.name for file in files}:
        raise unknown
    return files


def _module_files(model: _Model, commit: str) -> list[Path]:
    """Return what a sentence model has besides its BERT; nothing for other models."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        modules = _file(model, MODULES, commit)
    except LocalEntryNotFoundError:
        # Without a connection it is unknown whether there are modules; the BERT itself is here.
        return []
    if modules is None:
        return []
    found = [modules, *(_file(model, name, commit) for name in SENTENCE_CONFIGS)]
    for kind, folder in read_module_entries(modules.parent):
        if folder:
            found.append(_file(model, f"{folder}/config.json", commit))
        if kind == "Dense":
            weights = tuple(f"{folder}/{name}" for name in (SAFETENSORS[0], PYTORCH[0]))
            found.append(_first_of(model, weights, commit))
    return [file for file in found if file is not None]


def _first_of(model: _Model, names: tuple[str, ...], commit: str) -> Path | None:
    # Any cached file is preferred, as all contain the same tensors.
    known = [] if model.options.force_download else [model.cached(name, commit) for name in names]
    if (path := next((one for one in known if isinstance(one, str)), None)) is not None:
        return Path(path)
    return next((file for name in names if (file := _file(model, name, commit))), None)


def _file(model: _Model, name: str, commit: str | None) -> Path | None:
    """Return one file, downloaded if needed; None if the model has no such file.

    ``commit``: or another revision, of which the newest version is asked for.
    """
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    options = model.options
    if commit and commit != options.revision and not options.force_download:
        known = model.cached(name, commit)
        if known:
            return Path(known) if isinstance(known, str) else None
    policy, gone = download.RETRY, None if options.local_files_only else _unreachable()
    for wait in (*policy.waits, None):
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    model.hub_id,
                    name,
                    revision=commit,
                    cache_dir=options.cache_dir,
                    token=options.token,
                    force_download=options.force_download and gone is None,
                    local_files_only=options.local_files_only or gone is not None,
                )
            )
        except LocalEntryNotFoundError as error:
            # A subclass of EntryNotFoundError, raised if the hub does not answer.
            raise error from gone or error.__cause__
        except EntryNotFoundError:
            return None
        except HfHubHTTPError as error:
            # The library retries after a broken connection, but not if the server asks for a later
            # attempt.
            asked = download.retry_after(error.response.headers) or wait
            again = wait is not None and error.response.status_code in policy.statuses
            if asked is None or not again or asked > policy.longest_wait:
                raise
            policy.sleep(asked)
    raise AssertionError


def _unreachable() -> OSError | None:
    """Return the error if the hub is certainly unreachable, else None.

    The library would try for twenty seconds. Behind a proxy only the library can tell.
    """
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or getproxies():
        return None
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((place.hostname or "", port), timeout=_PATIENCE).close()
    except TimeoutError:
        return None
    except OSError as error:
        return error
    return None


class _Remark(logging.Handler):
    """A log handler that shows users one of the library's warnings: that it is retrying."""

    def __init__(self, progress: DownloadProgress, hub: str) -> None:
        super().__init__()
        self.progress = progress
        self.hub = hub

    def emit(self, record: logging.LogRecord) -> None:
        if "retry" in record.getMessage().lower() and self.hub:
            self.progress.note(f"{self.hub} does not answer; trying again for a while")
            self.hub = ""


@contextmanager
def silent(progress: DownloadProgress, quiet: bool) -> Iterator[None]:
    """Suppress the library's warnings and, if ``quiet``, its progress bars."""
    from huggingface_hub import constants, utils

    library: Any = utils  # it does not declare what it exports
    # If the environment variable is set, the library ignores calls about its bars.
    hide = quiet and constants.HF_HUB_DISABLE_PROGRESS_BARS is None
    hide = hide and not library.are_progress_bars_disabled()
    logger = library.logging.get_logger("huggingface_hub")
    handlers = logger.handlers
    logger.handlers = [_Remark(progress, constants.ENDPOINT)]
    if hide:
        library.disable_progress_bars()
    try:
        yield
    finally:
        logger.handlers = handlers
        if hide:
            library.enable_progress_bars()


@contextmanager
def one_line(
    explained: Callable[[str, BaseException], ZhbertError | None], hub_id: str
) -> Iterator[None]:
    """Turn errors of huggingface_hub into a ZhbertError of one line with advice."""
    try:
        yield
    except ZhbertError:
        raise
    except Exception as error:
        if (line := explained(hub_id, error)) is None:
            raise
        raise line from None


def _explained(hub_id: str, error: BaseException) -> ZhbertError | None:
    """Return an error with a cause and advice; None if it is not one of huggingface_hub."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return ZhbertError(
            f"{hub_id}: its owner lets in only whom they know: ask at {hub}/{hub_id}, then log in "
            "('hf auth login', or HF_TOKEN)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ZhbertError(
            f"{hub_id}: no such folder here, and no such model at {hub}; check the name ('zhbert "
            "models' lists the published ones), or set HF_TOKEN if it is private"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        why = f"no answer from {hub} ({first_line(error.__cause__ or error)})"
        if constants.HF_HUB_OFFLINE:
            why = "not in the hub's cache, which alone counts while HF_HUB_OFFLINE is set"
        return UnreachableError(f"{hub_id}: no such folder here, and {why}")
    if isinstance(error, errors.HfHubHTTPError):
        return ZhbertError(
            f"{hub_id}: {hub} answers: {first_line(error)}; run the same command again later"
        )
    if isinstance(error, errors.HFValidationError):
        return ZhbertError(f"{hub_id}: not a name on the hub: {first_line(error)}")
    if isinstance(error, OSError) and error.errno is not None:
        return describe_os_error(error, f"downloading {hub_id}")
    # The underlying HTTP library, and so its errors, depend on the version of huggingface_hub.
    if isinstance(error, OSError | RuntimeError) or of_transport(error):
        return ZhbertError(
            f"{hub_id}: the download from {hub} failed ({first_line(error)}); run the same "
            "command again: it goes on from there"
        )
    return None


def of_transport(error: BaseException) -> bool:
    """Return whether an error is one of the HTTP library, whichever huggingface_hub uses."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"httpx", "httpx2", "httpcore", "requests", "urllib3"})


def first_line(error: BaseException) -> str:
    """Return the cause of an error in a few words."""
    text = str(error).strip()
    # The text of an HTTP library's error contains "... [Errno 111] Connection refused')".
    if number := re.search(r"\[Errno -?\d+\] ([^'\")\n]+)", text):
        return number[1].lower()
    return text.partition("\n")[0].strip().removesuffix(".") or type(error).__name__
