"""Uploads of models to the Hugging Face hub, through huggingface_hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.zoo.layout import (
    MODULES,
    ModelFiles,
    find_model,
    module_folders,
    sentence_folder,
    shards_of,
)
from zhbert.zoo.origin import is_hub_id
from zhbert.zoo.progress import DownloadProgress

# zhbert.zoo.hub is imported inside functions: importing the network modules takes a while.

_BESIDE = ("README.md", "LICENSE", "NOTICE", "SHA256SUMS", "onnx/*.onnx", "onnx/*.onnx_data")


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    quiet: bool = True,
) -> str:
    """Upload a model folder to the Hugging Face hub, and return its address there.

    Only the files that belong to a model are uploaded, with its card, README.md. The repository is
    made if it does not exist. HF_ENDPOINT, HF_TOKEN and HF_HOME are respected.

    Args:
        folder: a model's folder, such as a run's ``final``.
        repo_id: its name on the hub: ``OWNER/MODEL``.
        commit_message: the message of the commit.
        private: whether a new repository is private; None: as its owner has set.
        token: an access token; None: HF_TOKEN, or that of ``hf auth login``.
        revision: the branch to upload to; None: the main one.
        create_pr: open a pull request instead of writing to the branch.
        quiet: show no progress on stderr.

    Raises:
        ZhbertError: the folder is no model, there is no token, the hub does not answer, or the
            token may not write there.
    """
    root, names = _files_of(find_model(folder))
    return _upload(
        root,
        names,
        repo_id,
        token=token,
        private=private,
        commit_message=commit_message,
        revision=revision,
        create_pr=create_pr,
        quiet=quiet,
    )


def _files_of(model: ModelFiles) -> tuple[Path, list[str]]:
    """Return a model's folder, and the patterns of the files in it that belong to the model.

    Other files are never uploaded: checkpoints and the records of a run contain paths, and more
    than a model's user needs.
    """
    from zhbert.zoo import hub

    if model.format != "onnx" and model.weights.name not in hub.WEIGHTS:
        raise ZhbertError(
            f"{model.weights}: the hub's users need {hub.WEIGHTS[0]}: 'zhbert convert' writes it"
        )
    root = sentence_folder(model.folder) or model.folder
    places = [f"{one}/" for one in module_folders(root) if one and (root / one).is_dir()]
    weights = [model.weights.name, *shards_of(model.weights)]
    names = (*weights, *hub.CONFIGS, *hub.TOKENIZER, *hub.SENTENCE_CONFIGS, MODULES, *_BESIDE)
    inside = [place + name for place in places for name in (*names, *hub.WEIGHTS)]
    return root, [*names, *inside]


class Pushable:
    """What can be uploaded as it is saved."""

    save_pretrained: Callable[..., None]

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub; return the address there.

        ``options`` are those of `zhbert.zoo.upload.push_to_hub`, with transformers' names.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self.save_pretrained(folder)
            return _upload(folder, None, repo_id, **options)


def _upload(
    folder: Path,
    patterns: list[str] | None,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    quiet: bool = True,
    **commit: Any,
) -> str:
    import huggingface_hub

    from zhbert.zoo.hub import one_line, silent

    if not is_hub_id(repo_id):
        raise ZhbertError(f"{repo_id}: not a name on the hub: write OWNER/MODEL")
    api = huggingface_hub.HfApi(token=token)
    if not (token or huggingface_hub.get_token()):
        raise ZhbertError(
            f"{repo_id}: no token, without which nobody may write to {api.endpoint}: log in ('hf "
            "auth login'), or set HF_TOKEN"
        )
    with one_line(_explained, repo_id), silent(DownloadProgress(), quiet):
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=patterns,
            commit_message=commit_message or "Upload with zhbert",
            **commit,
        )
    return f"{api.endpoint}/{repo_id}"


def _explained(repo_id: str, error: BaseException) -> ZhbertError | None:
    from huggingface_hub import constants

    # What fails in one of the library's threads is the cause of a RuntimeError.
    why = _cause_of(error.__cause__ if isinstance(error, RuntimeError) else error)
    where = f"{repo_id}: nothing was uploaded to {constants.ENDPOINT}"
    return ZhbertError(f"{where}: {why}") if why else None


def _cause_of(error: BaseException | None) -> str | None:
    from huggingface_hub import errors

    from zhbert.zoo import hub

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.HfHubHTTPError):
        why = {
            401: "the token is not valid: log in again ('hf auth login'), or set HF_TOKEN",
            403: "the token may not write there: take one that may write, or another OWNER",
        }
        return why.get(error.response.status_code, hub.first_line(error))
    if isinstance(error, ValueError):  # the front matter of README.md, or a name
        return " ".join(str(error).split())
    if error is not None and (isinstance(error, OSError) or hub.of_transport(error)):
        return f"no answer ({hub.first_line(error)})"
    return None
