"""Resolving a model's name to a local path, a catalogue entry, a hub id or an address."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.zoo import catalogue
from zhbert.zoo.archive import is_archive_name, kind_of
from zhbert.zoo.catalogue import ModelCard
from zhbert.zoo.layout import is_weights

# The forms in which a model is published -> the card's fields with the addresses.
FORMS = {
    "pytorch": ("package_folder", "hugging_face_id", "pytorch_archive"),
    "tensorflow": ("tensorflow_archive",),
}
# The fields that are not URLs -> the kind of origin.
_KINDS = {"package_folder": "package", "hugging_face_id": "hub"}


@dataclass(frozen=True)
class HubOptions:
    """How files of the Hugging Face hub are fetched, in huggingface_hub's terms."""

    cache_dir: str | Path | None = None
    """the folder of its files; None: HF_HOME's"""
    revision: str | None = None
    """a branch, tag or commit; None: the newest version"""
    token: str | bool | None = None
    """for private models; None: HF_TOKEN, or that of 'hf auth login'; False: none"""
    local_files_only: bool = False
    """take the files from the cache alone"""
    force_download: bool = False
    """fetch the files again"""


@dataclass(frozen=True)
class Origin:
    """The source of a model."""

    kind: str
    """folder, archive, url, hub or package (part of zhbert)."""
    address: str
    alternative: str | None = None
    """The option for another form of the same model, in case this one is unavailable."""


def origin_of(name: str | Path, form: str | None = None) -> Origin:
    """Resolve a name without downloading anything. ``form``: a key of ``FORMS``.

    >>> origin_of("RBT3")
    Origin(kind='hub', address='hfl/rbt3', alternative=None)

    Raises:
        ZhbertError: nothing of that name exists, or not in that form.
    """
    # pathlib.Path removes one of the two slashes of a URL.
    text = re.sub(r"^(https?):/(?!/)", r"\1://", str(name))
    if not text:
        raise ZhbertError("an empty name; name a model ('zhbert models' lists the published ones)")
    if text.startswith(("http://", "https://")):
        origin = Origin("url", text)
    elif (found := _origin_here(text)) is not None:
        origin = found
    elif (card := catalogue.find_card(text)) is not None:
        return origin_of_card(card, form)
    elif is_hub_id(text) and not is_archive_name(text):
        origin = Origin("hub", text)
    else:
        raise _no_such_model(text)
    if form:
        raise ZhbertError(f"--format {form}: only for names of the catalogue; leave it out")
    return origin


def is_here(name: str | Path) -> bool:
    """Return True if a name stands for a model that needs no download."""
    try:
        return origin_of(name).kind in ("folder", "archive", "package")
    except ZhbertError:
        return False


def is_hub_id(name: str) -> bool:
    """Return True if a name has the form OWNER/MODEL.

    >>> is_hub_id("hfl/rbt3"), is_hub_id("rbt3"), is_hub_id("./runs/rbt3")
    (True, False, False)
    """
    part = r"[A-Za-z0-9][\w.-]*"
    return re.fullmatch(f"{part}/{part}", name, re.ASCII) is not None


def short_name(model: str) -> str:
    """Return a model's name for tables: ``x`` for ``runs/x/final``.

    >>> short_name("runs/tiny/final"), short_name("hfl/rbt3"), short_name("BERT-Mini/")
    ('tiny', 'rbt3', 'BERT-Mini')
    """
    parts = [part for part in model.replace(os.sep, "/").split("/") if part not in ("", ".")]
    while len(parts) > 1 and (parts[-1] == "final" or parts[-1].startswith("seed-")):
        parts.pop()
    return parts[-1] if parts else model


def origin_of_card(card: ModelCard, form: str | None = None) -> Origin:
    """Return the origin of a model of the catalogue, in ``form`` or in the first existing one."""
    fields = {
        form: [name for name in names if getattr(card, name)] for form, names in FORMS.items()
    }
    there = {form: names[0] for form, names in fields.items() if names}
    if not there:
        raise ZhbertError(f"{card.name}: in the catalogue, but published nowhere that is known")
    if form is None:
        form = next(iter(there))
    if form not in there:
        raise ZhbertError(f"{card.name}: not published as {form}; there is {', '.join(there)}")
    other = next((f"--format {other}" for other in there if other != form), None)
    field = there[form]
    return Origin(_KINDS.get(field, "url"), getattr(card, field), other)


def _origin_here(text: str) -> Origin | None:
    """Return the folder, archive or weights file at a path; None if nothing exists there."""
    path = Path(text).expanduser()
    try:
        if not path.exists() and not Path(f"{path}.index").exists():
            return None
        packed = path.is_file() and (is_archive_name(path.name) or kind_of(path) is not None)
        # Files written by torch.save are zip files, but not archives of a model.
        packed = packed and not is_weights(path)
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    return Origin("archive" if packed else "folder", str(path))


def _no_such_model(text: str) -> ZhbertError:
    if "/" in text or is_archive_name(text):
        return ZhbertError(f"{text}: no such file or folder")
    near = catalogue.similar_names(text)
    known = f"did you mean {' or '.join(near)}?" if near else "'zhbert models' lists them"
    return ZhbertError(f"{text}: no such folder, and no such model in the catalogue; {known}")
