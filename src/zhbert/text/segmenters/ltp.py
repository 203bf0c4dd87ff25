"""LTP 4: neural models and perceptron ("legacy") ones (https://github.com/HIT-SCIR/ltp)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from zhbert.text.segmenters.library import Cut, LibrarySegmenter
from zhbert.text.segmenters.loading import Library, describe_model
from zhbert.text.simplify import Simplifier

_DEFAULT = "LTP/small"
_LTP = Library(
    "ltp",
    {
        "_ltp_target_": frozenset(
            f"ltp_core.models.{name}"
            for name in (
                "ltp_model.LTPModule",
                "utils.load_transformers",
                "utils.transformer.load_transformers",
                "components.graph.BiaffineClassifier",
                "components.sent.MLPClassifier",
                "components.token.BiaffineTokenClassifier",
                "components.token.MLPTokenClassifier",
                "components.token.RelTransformerTokenClassifier",
                "processor.ClsOnly",
                "processor.NOP",
                "processor.TokenOnly",
                "processor.WordsOnly",
                "processor.WordsWithHead",
            )
        ),
        "model_type": frozenset(
            ("albert", "bert", "deberta-v2", "electra", "ernie", "megatron-bert", "roberta")
        ),
        "tokenizer_class": frozenset(
            (
                "BertTokenizer",
                "BertTokenizerFast",
                "ElectraTokenizer",
                "ElectraTokenizerFast",
                "PreTrainedTokenizerFast",
                "TokenizersBackend",
            )
        ),
    },
)
# Words of the user with their frequencies.
_Words = list[tuple[str, int]]


def load_ltp(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """Load LTP.

    ``model``: a folder with its config.json, a perceptron's file (cws_model.bin), or a name of the
    Hugging Face hub (LTP/small, LTP/tiny, LTP/base, LTP/legacy; LTP/small otherwise).
    """
    simplify = Simplifier(traditional)
    named = _DEFAULT if model is None else model
    local = _LTP.local(named)
    if local is None:
        local = _fetch(str(named))
    perceptron = _perceptron_file(local)
    words = [
        (simplify(word), 2 if frequency is None else frequency)
        for word, frequency, _ in _LTP.user_words(user_words)
    ]
    if perceptron is not None:
        cut, files = _load_perceptron(perceptron, words), [perceptron]
    else:
        cut, files = _load_neural(local, words)
    return LibrarySegmenter(
        "ltp",
        metadata.version("ltp" if perceptron is None else "ltp-extension"),
        cut,
        simplify=simplify,
        options={"kind": "neural" if perceptron is None else "perceptron"}
        | describe_model(named, files),
        user_words=user_words,
    )


def _fetch(name: str) -> Path:
    """Return the folder of a model of the hub, in the hub's cache."""
    hub = _LTP.module("huggingface_hub")
    name, _, revision = name.partition("@")
    with _LTP.loading(name):
        folder = hub.snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=["*.json", "*.txt", "pytorch_model.bin", "cws_model.bin"],
        )
    return Path(folder)


def _perceptron_file(model: Path) -> Path | None:
    """Return the file of a perceptron that finds words; None if the model is a neural one."""
    if not model.is_file():
        config = _LTP.config(model)
        if "nerual" not in config:  # LTP's own spelling
            raise _LTP.error(f"{model}: config.json is not of an LTP model")
        if config["nerual"]:
            return None
        tasks = config.get("tasks")
        # Beside the config, whatever folder the config names.
        model /= Path(str(tasks.get("cws") if isinstance(tasks, dict) else None)).name
    (file,) = _LTP.files(model.parent, [model.name])
    return file


def _load_perceptron(file: Path, words: _Words) -> Cut:
    library = _LTP.module("ltp_extension.perceptron")
    with _LTP.loading(file):
        predict: Cut = library.CWSModel.load(str(file)).predict
    if not words:
        return predict
    hook = _LTP.module("ltp_extension.algorithms").Hook()
    for word, frequency in words:
        hook.add_word(word, frequency)
    return lambda sentence: list(hook.hook(sentence, predict(sentence)))


def _load_neural(folder: Path, words: _Words) -> tuple[Cut, list[Path]]:
    """Return the model's cut, and the files that it was made of."""
    files = _LTP.files(folder, ["config.json", "pytorch_model.bin"])
    files += [file for file in (folder / "vocab.txt", folder / "tokenizer.json") if file.is_file()]
    if (folder / "tokenizer_config.json").is_file():
        _LTP.config(folder, "tokenizer_config.json")
    ltp, tokenizer = _open_neural(folder)
    for word, frequency in words:
        ltp.add_word(word, frequency)

    def cut(sentence: str) -> list[str]:
        pieces = tokenizer.backend_tokenizer.encode(sentence)
        if len(pieces) <= 2:
            return []
        if len(pieces) > 512 or pieces.overflowing:
            # LTP would leave the rest uncut. That is not rare: 한 alone is three pieces.
            middle = len(sentence) // 2
            return cut(sentence[:middle]) + cut(sentence[middle:])
        found: list[str] = ltp.pipeline([sentence], tasks=["cws"]).cws[0]
        return found

    return cut, files


def _open_neural(folder: Path) -> tuple[Any, Any]:
    """LTP's model and its tokenizer, loaded as LTP does, but without unpickling any code."""
    library = _LTP.module("ltp.nerual")
    transformers = _LTP.module("transformers")
    torch = _LTP.module("torch")
    config = _LTP.config(folder)
    with _LTP.loading(folder):
        ltp = library.LTP(config=config)
        ltp.tokenizer = tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder),
            config=ltp.model.backbone.config,
            local_files_only=True,
            trust_remote_code=False,
        )
        file = folder / "pytorch_model.bin"
        state = torch.load(file, map_location="cpu", weights_only=True)
        missing: Sequence[str] = ltp.model.load_state_dict(state, strict=False).missing_keys
        ltp.eval()
    # Of the heads, only the one that finds words has to be there.
    needed = [key for key in missing if "task_heads." not in key or "task_heads.cws." in key]
    _LTP.refuse_missing(folder, needed)
    if not hasattr(tokenizer, "batch_encode_plus"):
        # LTP 4.2.14 calls it by this name, which transformers 5 does not have any more.
        tokenizer.batch_encode_plus = tokenizer.__call__
    return ltp, tokenizer
