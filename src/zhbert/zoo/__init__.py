"""Published models: locating, downloading and unpacking them into local folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import atomic_folder, describe_os_error, sha256_of
from zhbert.wording import without_secrets
from zhbert.zoo import catalogue
from zhbert.zoo.archive import BadArchiveError, unpack
from zhbert.zoo.layout import ModelFiles, find_model, sentence_folder
from zhbert.zoo.origin import HubOptions, Origin, origin_of, origin_of_card
from zhbert.zoo.packaged import is_packaged, packaged_model
from zhbert.zoo.progress import DownloadProgress, shown

# zhbert.zoo.download and zhbert.zoo.hub are imported inside functions: importing the network
# modules that they need takes as long as the rest of a verb's start.


def cache_folder() -> Path:
    """Return the folder of cached archives and models: ZHBERT_CACHE, or ~/.cache/zhbert."""
    if chosen := os.environ.get("ZHBERT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "zhbert"


def locate(
    name: str | Path,
    *,
    form: str | None = None,
    quiet: bool = True,
    hub: HubOptions | None = None,
) -> Path:
    """Return the local folder of a model; download and unpack it into the cache if needed.

    Args:
        name: a folder; an archive of one (zip, tgz, tar, ...); a name in the catalogue (``rbt3``,
            or ``mini``, which is part of this package); a hub id (``hfl/rbt3``); or the URL of an
            archive. A local file or folder of that name has precedence.
        form: for names in the catalogue: "pytorch" (the default if both exist) or "tensorflow".
        quiet: show no progress on stderr.
        hub: how a model of the hub is fetched.

    Raises:
        ZhbertError: nothing of that name exists, it contains no model, or the download failed.
    """
    origin = origin_of(name, form)
    if origin.kind == "folder":
        return _folder_of(Path(origin.address))
    if origin.kind == "package":
        return packaged_model(origin.address)
    with _clear_errors(origin), shown(quiet) as progress:
        if origin.kind == "hub":
            from zhbert.zoo.hub import fetch_files

            files = fetch_files(origin.address, hub, progress=progress, quiet=quiet)
            return find_model(files[0].parent).folder
        if origin.kind == "archive":
            return _unpacked(Path(origin.address), progress)
        return _from_url(origin.address, progress)


def find_files(name: str | Path, *, quiet: bool = True) -> ModelFiles:
    """Return the files of a model, given as anything that ``locate`` accepts or a weights file.

    Raises:
        ZhbertError: as ``locate``.
    """
    folder = locate(name, quiet=quiet)
    path = Path(name).expanduser()
    # If a weights file is named, it is used even if the folder contains others.
    return find_model(path if path.parent == folder and not path.is_dir() else folder)


def save(
    name: str | Path,
    out: str | Path,
    *,
    form: str | None = None,
    replace: bool = True,
    quiet: bool = True,
) -> Path:
    """Get a model as ``locate`` does and write its files into the folder ``out``, all or none.

    The weights are written directly into ``out``, even if an archive contains them in a subfolder.
    An existing ``out`` is replaced; with ``replace=False`` it is an error.

    Raises:
        ZhbertError: as ``locate``.
    """
    origin = origin_of(name, form)
    if origin.kind == "folder":
        model = find_model(origin.address)
        raise ZhbertError(
            f"{name}: here already, nothing to download: 'zhbert inspect {model.folder}' and every "
            "other verb take it by this name"
        )
    with _clear_errors(origin), shown(quiet) as progress:
        if origin.kind == "hub":
            from zhbert.zoo.hub import fetch_files

            _copy(fetch_files(origin.address, progress=progress, quiet=quiet), out, replace)
        elif origin.kind == "package":
            _copy(list(packaged_model(origin.address).iterdir()), out, replace)
        else:
            here = nullcontext(Path(origin.address))
            with here if origin.kind == "archive" else _fetched(origin.address, progress) as file:
                _unpack(file, Path(out), progress, lift=True, replace=replace)
    return Path(out)


def cached_models() -> list[str]:
    """Return the models that need no network: names in the catalogue, hub ids, addresses."""
    from zhbert.zoo.download import read_record
    from zhbert.zoo.hub import cached_hub_ids

    cards = catalogue.cards()
    names = {origin_of_card(card).address: card.name for card in cards}
    ours = [card.name for card in cards if is_packaged(card.package_folder)]
    records = map(read_record, sorted((cache_folder() / "downloads").glob("*")))
    here = [one.url for one in records if one and _intact(_unpacked_folder(one.sha256))]
    return [*ours, *(names.get(address, address) for address in (*here, *cached_hub_ids()))]


# --- folders and archives -----------------------------------------------------------------------


def _copy(files: Sequence[Path], out: str | Path, replace: bool) -> None:
    """Copy files, the first of which is not in a subfolder, to the same places in ``out``."""
    with atomic_folder(out, replace=replace) as temporary:
        for file in files:
            copy = temporary / file.relative_to(files[0].parent)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)


def _folder_of(path: Path) -> Path:
    model = find_model(path)
    if not path.is_dir():
        # If the folder contains several checkpoints, its path could stand for another one.
        try:
            if find_model(model.folder).weights != model.weights:
                return path
        except ZhbertError:
            return path
    return model.folder


def _unpacked_folder(sha256: str) -> Path:
    return cache_folder() / "models" / sha256[:32]


def _unpacked(archive: Path, progress: DownloadProgress) -> Path:
    """Unpack an archive into the cache, under its checksum, and return the model's folder."""
    from zhbert.zoo.download import locked

    folder = _unpacked_folder(sha256_of(archive))
    if (model := _intact(folder)) is not None:
        return model
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), f"unpacking {archive}", progress):
        if _intact(folder) is None:
            _unpack(archive, folder, progress)
    return find_model(folder).folder


def _intact(folder: Path) -> Path | None:
    """Return the model folder inside a cache folder; None if there is no complete model."""
    try:
        return find_model(folder).folder
    except ZhbertError:
        return None


def _unpack(
    archive: Path,
    out: Path,
    progress: DownloadProgress,
    *,
    lift: bool = False,
    replace: bool = True,
) -> None:
    """Unpack a model into ``out``, all or nothing.

    ``lift``: move its files up from a subfolder of the archive into ``out``.
    """
    with atomic_folder(out, replace=replace) as temporary:
        inside = temporary / f".{os.getpid()}.unpacked" if lift else temporary
        inside.mkdir(exist_ok=True)
        try:
            unpack(archive, inside, progress=progress)
        except ZhbertError as error:
            error.args = (str(error).replace(str(inside), str(out)),)
            raise
        try:
            model = find_model(inside)
        except ZhbertError as error:
            raise BadArchiveError(str(error).replace(str(inside), str(archive))) from None
        if lift:
            # A sentence model has more than the folder of its BERT.
            folder = sentence_folder(model.folder) or model.folder
            # Keep files beside the model's folder, such as a licence.
            beside = [path for path in inside.iterdir() if path.is_file()]
            for path in (*folder.iterdir(), *beside):
                if path.exists() and not (temporary / path.name).exists():
                    path.rename(temporary / path.name)
            shutil.rmtree(inside)


# --- addresses ----------------------------------------------------------------------------------


def _from_url(url: str, progress: DownloadProgress) -> Path:
    from zhbert.zoo.download import folder_for, read_record, split_checksum

    record = read_record(folder_for(url, cache_folder()))
    expected = split_checksum(url)[1]
    if record and expected in (None, record.sha256):
        model = _intact(_unpacked_folder(record.sha256))
        if model is not None:
            return model
    with _fetched(url, progress) as archive:
        return _unpacked(archive, progress)


@contextmanager
def _fetched(url: str, progress: DownloadProgress) -> Iterator[Path]:
    """Download the archive at ``url``; remove it from the cache if unpacking finds it damaged."""
    from zhbert.zoo.download import discard, fetch, folder_for

    store = folder_for(url, cache_folder())
    archive = fetch(url, store, progress=progress)
    try:
        yield archive
    except BadArchiveError as error:
        discard(store)
        raise ZhbertError(str(error).replace(str(archive), without_secrets(url))) from None


def _other_ways(origin: Origin) -> str:
    """Return other sources of a hub model, for the error if the hub is unreachable."""
    from zhbert.zoo.hub import MIRROR, asks_the_hub_itself

    if origin.kind != "hub" or not asks_the_hub_itself():
        return ""
    ways = f"; where huggingface.co is out of reach: export HF_ENDPOINT={MIRROR}"
    if (card := catalogue.find_card(origin.address)) and (copy := card.modelscope_id):
        ways += (
            f", or ModelScope's copy: modelscope download --model {copy} --local_dir {card.name}"
        )
    return ways


@contextmanager
def _clear_errors(origin: Origin) -> Iterator[None]:
    """Add alternatives, if any are known, to download errors raised inside the context."""
    from zhbert.zoo.download import NotThereError, UnreachableError

    try:
        yield
    except UnreachableError as error:
        here = ", ".join(cached_models())
        known = f"these are here: {here}" if here else "no model was fetched before"
        raise UnreachableError(f"{error}{_other_ways(origin)}; {known}") from None
    except NotThereError as error:
        hint = f"; or try {origin.alternative}" if origin.alternative else ""
        raise ZhbertError(f"{error}{hint}") from None
    except OSError as error:
        raise describe_os_error(error, f"getting {origin.address}:") from None
