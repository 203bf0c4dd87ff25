"""The identity of a run's inputs: a run is resumed only if all of them are the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.files import sha256_of
from zhbert.finetuning.request import FineTuningRequest
from zhbert.runs.provenance import read_provenance
from zhbert.tasks.cards import card_table

if TYPE_CHECKING:
    from zhbert.finetuning.starting_model import StartingModel

_NAMES = {"configuration": "model configuration", "vocabulary": "model vocabulary",
          "together": "set of tasks with one encoder"}  # fmt: skip
# Parts of a card that change no score: texts, published results, and settings (a run's settings are
# compared separately).
_NOT_COMPARED = {"title", "note", "licence", "official", "published", "settings"}


def identity_of(
    request: FineTuningRequest, start: StartingModel, teachers: Sequence[StartingModel] = ()
) -> dict[str, Any]:
    """Return everything besides the settings that determines a run's results, as JSON data."""
    identity = {
        **start.identity(),
        **({"teacher": [one.identity() for one in teachers]} if teachers else {}),
        **{name: sha256_of(path) for name, path in request.files.items()},
        "task": card_table(request.card),
        **{
            f"card of {name}": card_table(split.card)
            for name, split in request.splits.items()
            if split.card is not request.card
        },
        "grid": len(request.points) > 1,
        **({"together": request.together} if request.together else {}),
    }
    # The same form as when read back from provenance.json, in which tuples are lists.
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def check_identity(request: FineTuningRequest, identity: dict[str, Any]) -> None:
    """Raise ZhbertError if the existing run was made from other inputs."""
    folder = request.run_folder.path
    theirs = read_provenance(folder).get("identity")
    if not isinstance(theirs, dict) or not theirs:
        raise ZhbertError(
            f"{folder}: a run of which provenance.json is missing or damaged; --overwrite begins "
            "it anew, or choose another --out"
        )
    for key in {**identity, **theirs}:
        # Older versions recorded fewer keys; only recorded ones are compared.
        files = {*request.files, *request.card.data.splits}
        noted = key in theirs or key in files or key == "teacher"
        if noted and _compared(theirs.get(key)) != _compared(identity.get(key)):
            named = f"{key} file" if key in files else _NAMES.get(key, key)
            raise ZhbertError(
                f"{folder}: a run of another {named} is there already; --overwrite replaces it, "
                "or choose another --out"
            )


def _compared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: one for key, one in value.items() if key not in _NOT_COMPARED}
    return value
