"""What a name stands for: something here, a model of the catalogue, of the hub, or an address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.zoo import catalogue
from zhbert.zoo.archive import is_archive_name, kind_of
from zhbert.zoo.catalogue import ModelCard
from zhbert.zoo.layout import is_weights

# The forms in which a model is published -> the fields of its card that say where.
FORMS = {
    "pytorch": ("package_folder", "hugging_face_id", "pytorch_archive"),
    "tensorflow": ("tensorflow_archive",),
}
# Those fields that hold no address -> the kind of origin that they name.
_KINDS = {"package_folder": "package", "hugging_face_id": "hub"}


@dataclass(frozen=True)
class Origin:
    """Where a model comes from."""

    kind: str
    """folder, archive, url, hub or package (a part of zhbert itself)."""
    address: str
    alternative: str | None = None
    """The option that asks for another form of the same model, should this one be gone."""


def origin_of(name: str | Path, form: str | None = None) -> Origin:
    """What a name stands for; nothing is fetched. ``form``: a key of ``FORMS``.

    >>> origin_of("RBT3")
    Origin(kind='hub', address='hfl/rbt3', alternative=None)

    Raises:
        ZhbertError: nothing of that name, or not in that form.
    """
    # A Path has lost one of an address' slashes.
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
    """Whether a name leads to a model without a download."""
    try:
        return origin_of(name).kind in ("folder", "archive", "package")
    except ZhbertError:
        return False


def is_hub_id(name: str) -> bool:
    """Whether a name has the form OWNER/MODEL.

    >>> is_hub_id("hfl/rbt3"), is_hub_id("rbt3"), is_hub_id("./runs/rbt3")
    (True, False, False)
    """
    part = r"[A-Za-z0-9][\w.-]*"
    return re.fullmatch(f"{part}/{part}", name, re.ASCII) is not None


def origin_of_card(card: ModelCard, form: str | None = None) -> Origin:
    """Where a model of the catalogue comes from; without ``form``, in the first that there is."""

    def of(form: str) -> list[Origin]:
        fields = [field for field in FORMS[form] if getattr(card, field)]
        return [Origin(_KINDS.get(field, "url"), getattr(card, field)) for field in fields]

    there = {form: origins for form in FORMS if (origins := of(form))}
    if not there:
        raise ZhbertError(f"{card.name}: in the catalogue, but published nowhere that is known")
    if form is None:
        form = next(iter(there))
    if form not in there:
        raise ZhbertError(f"{card.name}: not published as {form}; there is {', '.join(there)}")
    other = next((f"--format {other}" for other in there if other != form), None)
    first = there[form][0]
    return Origin(first.kind, first.address, other)


def _origin_here(text: str) -> Origin | None:
    """The folder, archive or file of weights at a path; None where nothing is."""
    path = Path(text).expanduser()
    try:
        if not path.exists() and not Path(f"{path}.index").exists():
            return None
        packed = path.is_file() and (is_archive_name(path.name) or kind_of(path) is not None)
        # Files of torch.save are zips inside, but no archives of a model.
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
