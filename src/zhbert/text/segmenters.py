"""The segmenters of other libraries: LTP, pkuseg, THULAC and HanLP, each an extra of this package.

What a library does to a text on the way (blanks dropped, full-width letters made half-width) is
undone here: a ``LibrarySegmenter`` hands it clean sentences and finds its words in the text again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import re
import tempfile
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import read_json, sha256_of
from zhbert.text.segment import Traditional, UserWord, not_kept_whole, read_user_words, simplify
from zhbert.text.sentences import Array, codes_of, split_text, text_of
from zhbert.wording import how_to_install

# A sentence of clean text -> its words, in order.
Cut = Callable[[str], list[str]]

# Characters of the longest sentence that a library is given. The neural models see 510 pieces; to
# the others a megabyte in one sentence would be quadratic time or a fixed array overrun.
LONGEST = 500
# The user's words that are tried one by one at the start: a neural model takes 10 ms for each.
_TRIED = 200
_KNOWN = "使用语言模型来预测下一个词。"

# ---------------------------------------------------------------- clean text and back


@functools.cache
def _clean_table() -> Array:
    """(0x110000,) uint32: blanks and control characters to a blank, lone surrogates to U+FFFD."""
    table = np.arange(0x110000, dtype=np.uint32)
    for code in range(0x3001):
        if chr(code).isspace() or unicodedata.category(chr(code)) == "Cc":
            table[code] = 0x20
    # Rust and C++ read text as UTF-8, which has no code for them.
    table[0xD800:0xE000] = 0xFFFD
    return table


@functools.lru_cache(1 << 16)
def _fold(character: str) -> str:
    """What stays of a character in any library: no width, case, accent, or invisible character."""
    if character == "\ufffd":
        return ""
    return "".join(
        c
        for c in unicodedata.normalize("NFKD", character).casefold()
        if unicodedata.category(c)[0] not in "CZ" and unicodedata.category(c) != "Mn"
    )


def align(sentence: str, words: Sequence[str]) -> list[int] | None:
    """The ends of ``words`` in ``sentence``, increasing; None where they are not its words.

    Blanks and invisible characters that were dropped belong to the word before them.

    >>> align("使用ＢＥＲＴ 模型", ["使用", "bert", "模型"])
    [2, 7, 9]
    >>> align("使用模型", ["使用", "[UNK]"])
    """
    joined = "".join(words)
    if joined == sentence:
        ends = []
        at = 0
        for word in words:
            at += len(word)
            if word:
                ends.append(at)
        return ends
    folded = [_fold(character) for character in simplify(sentence)]
    if "".join(folded) != "".join(map(_fold, simplify(joined))):
        return None
    # place[k]: where the character of the sentence begins that holds the folded character k.
    place = [at for at, fold in enumerate(folded) for _ in fold]
    place.append(len(sentence))
    found = []
    at = 0
    for word in words:
        at += sum(len(_fold(character)) for character in simplify(word))
        # A cut inside a character (㎏ as k and g) stands where the character begins.
        found.append(place[at])
    return sorted({end for end in found if end})


class LibrarySegmenter:
    """A library's words, found again in the text; see Segmenter.

    The library gets one sentence at a time, so what it finds depends on nothing beside it: the
    rounding of a neural model changes with what is computed in the same batch (32 sentences of
    one length at a time would be 1.5 times as fast on a CPU). A blank is never inside a word.
    ``unaligned`` counts the sentences whose words could not be found in the text: there each
    character is a word. That claims nothing about words, and one odd line does not stop a corpus
    of many hours; a library that is off altogether is noticed when it is loaded.
    """

    def __init__(
        self,
        name: str,
        version: str,
        cut: Cut,
        *,
        traditional: Traditional,
        options: dict[str, Any],
        user_words: Path | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.options: dict[str, Any] = traditional.options | options
        self.remarks: list[str] = []
        self.unaligned = 0
        self._cut = cut
        self._traditional = traditional
        if align(_KNOWN, self._words(_KNOWN)) is None:
            raise ZhbertError(
                f"segmenter {name}: the words of '{_KNOWN}' come out as "
                f"{' '.join(self._words(_KNOWN))[:40]!r}: this model or version cannot be used"
            )
        if user_words is not None:
            self._try_user_words(user_words)

    def _try_user_words(self, file: Path) -> None:
        self.options["user_words"] = sha256_of(file)
        words = [word for word, _, _ in read_user_words(file, self.name)]
        tried = [word for word in words if not _has_blank(word)][:_TRIED]
        apart = [word for word in words if _has_blank(word)]
        apart += [word for word in tried if len(self.segment([word])[0]) > 1]
        if apart:
            asked = f" (only {_TRIED:,} were tried)" if len(tried) == _TRIED else ""
            self.remarks.append(not_kept_whole(file, self.name, apart, len(words), asked))

    def _words(self, sentence: str) -> list[str]:
        try:
            return self._cut(sentence)
        except Exception as error:
            # Not cut by characters: no memory left, say, is not the sentence's fault.
            raise ZhbertError(
                f"segmenter {self.name}: stopped at '{sentence[:20]}…': {_first_line(error)}"
            ) from error

    def segment(self, texts: Sequence[str]) -> list[Array]:
        """For each text the ends of its words, in characters (see Segmenter)."""
        return [self._ends(text) for text in texts]

    def _ends(self, text: str) -> Array:
        if not text:
            return np.zeros(0, np.int32)
        codes = codes_of(text)
        clean_codes = _clean_table()[codes]
        clean = self._traditional(text_of(clean_codes))
        ends = np.zeros(len(text) + 1, bool)
        blank = clean_codes == 0x20
        # Of a run of blanks both ends.
        ends[1:-1] = blank[1:] != blank[:-1]
        ends[-1] = True
        start = 0
        for end in split_text(codes, np.zeros(1, np.int64), longest=LONGEST).ends.tolist():
            ends[end] = True
            sentence = clean[start:end].rstrip(" ")
            begin = start + len(sentence) - len(sentence.lstrip(" "))
            sentence = sentence.lstrip(" ")
            start = end
            # A neural model has no piece for what is invisible, and not all can do without one.
            if any(map(_fold, sentence)):
                found = align(sentence, self._words(sentence))
                if found is None:
                    self.unaligned += 1
                    found = list(range(1, len(sentence) + 1))
                ends[[begin + place for place in found]] = True
        ends[0] = False
        return np.flatnonzero(ends).astype(np.int32)


def _has_blank(word: str) -> bool:
    """Whether a blank stands inside a user's word: a library cuts there, so it never gets it."""
    return any(map(str.isspace, word))


def _user_words(segmenter: str, file: Path | None) -> list[UserWord]:
    """The user's words that a library is given: those without a blank inside."""
    words = [] if file is None else read_user_words(file, segmenter)
    return [word for word in words if not _has_blank(word.word)]


# ---------------------------------------------------------------- libraries and their models


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


def _import(segmenter: str, module: str) -> Any:
    try:
        with warnings.catch_warnings():
            # Of their own code (invalid escapes, say), when Python compiles it for the first time.
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise ZhbertError(
            f"segmenter {segmenter}: {module.split('.')[0]} cannot be imported "
            f"({_first_line(error)}); {how_to_install(segmenter)}"
        ) from error


@contextlib.contextmanager
def _loading(segmenter: str, model: str | Path) -> Iterator[None]:
    """What the libraries raise becomes one line; what they print to stdout is no result."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # Files that they leave open, calls that their own dependencies have deprecated.
        warnings.simplefilter("ignore")
        try:
            yield
        except ZhbertError:
            raise
        except (Exception, SystemExit) as error:
            traceback.clear_frames(error.__traceback__)
            raise ZhbertError(
                f"segmenter {segmenter}: model {model} could not be loaded ({_first_line(error)}); "
                "give a model's file or folder with --segmenter-model, or go online to fetch it"
            ) from error


def _local(segmenter: str, model: str | Path) -> Path | None:
    """The file or folder that ``model`` names; None where it can only be a library's name."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    text = str(model)
    is_path = isinstance(model, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1
    if is_path and "://" not in text:
        raise ZhbertError(f"segmenter {segmenter}: {model}: no such model file or folder")
    return None


def _hash(files: Sequence[Path]) -> str:
    """One SHA-256 for the files of a model, by name and content, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _record(model: str | Path, files: Sequence[Path]) -> dict[str, Any]:
    """What corpus.json says of a model: no path of this machine, but what the files hold."""
    name = Path(model).resolve().name if Path(model).expanduser().exists() else str(model)
    return {"model": name, "model_sha256": _hash(files)}


def _need(segmenter: str, folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of these names; ZhbertError where the folder lacks one."""
    for name in names:
        if not (folder / name).is_file():
            raise ZhbertError(
                f"segmenter {segmenter}: {folder}: no {name}: not a {segmenter} model"
            )
    return [folder / name for name in names]


def _config(segmenter: str, folder: Path, name: str = "config.json") -> dict[str, Any]:
    (file,) = _need(segmenter, folder, [name])
    config = read_json(file, dict, f"a {segmenter} model's {name}")
    _refuse_code(segmenter, file, config)
    return config


# LTP, HanLP and transformers import and call what a model's files name, at any depth, and a name
# is looked up through modules: torch.nn.parallel.distributed.os.system is a command. So for each
# key by which they do that only these exact names pass; and none of a key without names.
_NAMES: dict[str, dict[str, frozenset[str]]] = {
    "ltp": {
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
    "hanlp": {
        "classpath": frozenset(
            f"hanlp.{name}"
            for name in (
                "components.tokenizers.transformer.TransformerTaggingTokenizer",
                "common.dataset.KMeansSamplerBuilder",
                "common.dataset.SortingSamplerBuilder",
                "common.transform.NormalizeCharacter",
                "common.transform.NormalizeToken",
                "layers.scalar_mix.ScalarMixWithDropoutBuilder",
            )
        ),
        # Of vocabs.json.
        "type": frozenset(
            f"hanlp.common.vocab.{name}"
            for name in ("LowercaseVocab", "Vocab", "VocabWithFrequency", "VocabWithNone")
        ),
    },
}
# Of transformers, which both libraries load a model with: code in its folder, kernels of the hub.
_NAMES_OF_TRANSFORMERS: dict[str, frozenset[str]] = {
    "auto_map": frozenset(),
    "attn_implementation": frozenset(("eager", "sdpa")),
    "_attn_implementation": frozenset(("eager", "sdpa")),
    "_attn_implementation_internal": frozenset(("eager", "sdpa")),
}
_ADDRESS = re.compile(r"(?:https?|ftp):(?!//file\.hankcs\.com/)", re.IGNORECASE)


def _refuse_code(segmenter: str, file: Path, config: Any) -> None:
    """Raise ZhbertError where ``config`` makes a library run what no such model needs."""
    names = _NAMES[segmenter] | _NAMES_OF_TRANSFORMERS
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        if not isinstance(value, dict):
            continue
        left += value.values()
        for key, name in value.items():
            calls = key in names and isinstance(name, str | dict | list)
            if calls and (not isinstance(name, str) or name not in names[key]):
                raise ZhbertError(
                    f"segmenter {segmenter}: {file}: {key} wants {str(name)[:80]!r}: refused, as "
                    "it could run any code; give a model from a source that you trust"
                )
            # HanLP fetches an address when it makes the object that is given it.
            if segmenter == "hanlp" and isinstance(name, str) and _ADDRESS.match(name):
                raise ZhbertError(
                    f"segmenter {segmenter}: {file}: {key} is an address, {name[:80]!r}: refused, "
                    "but for those of https://file.hankcs.com/"
                )


# ---------------------------------------------------------------- LTP

_LTP_DEFAULT = "LTP/small"


def load_ltp(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """LTP 4: a neural model or a perceptron ("legacy") one.

    ``model``: a folder with its config.json, a perceptron's file (cws_model.bin), or a name of the
    Hugging Face hub (LTP/small, LTP/tiny, LTP/base, LTP/legacy; LTP/small otherwise).
    """
    simplified = Traditional(traditional)
    named = _LTP_DEFAULT if model is None else model
    local = _local("ltp", named)
    if local is None:
        local = _fetch_ltp(str(named))
    perceptron = local.is_file()
    config: dict[str, Any] = {}
    if not perceptron:
        config = _config("ltp", local)
        if "nerual" not in config:  # LTP's own spelling
            raise ZhbertError(f"segmenter ltp: {local}: config.json is not of an LTP model")
        perceptron = not config["nerual"]
    hooked = [
        (simplified(word), 2 if frequency is None else frequency)
        for word, frequency, _ in _user_words("ltp", user_words)
    ]
    if perceptron:
        file = local if local.is_file() else local / _ltp_file(config)
        _need("ltp", file.parent, [file.name])
        cut = _ltp_perceptron(file, hooked)
        files, package = [file], "ltp-extension"
    else:
        files = _need("ltp", local, ["config.json", "pytorch_model.bin"])
        files += [
            file for file in (local / "vocab.txt", local / "tokenizer.json") if file.is_file()
        ]
        if (local / "tokenizer_config.json").is_file():
            _config("ltp", local, "tokenizer_config.json")
        cut, package = _ltp_neural(local, config, hooked), "ltp"
    return LibrarySegmenter(
        "ltp",
        metadata.version(package),
        cut,
        traditional=simplified,
        options={"kind": "perceptron" if perceptron else "neural"} | _record(named, files),
        user_words=user_words,
    )


def _ltp_file(config: Mapping[str, Any]) -> str:
    """The file of the words' model, beside a perceptron's config and nowhere else."""
    tasks = config.get("tasks")
    return Path(str(tasks.get("cws") if isinstance(tasks, dict) else None)).name


def _fetch_ltp(name: str) -> Path:
    """The folder of a model of the hub, in its cache."""
    hub = _import("ltp", "huggingface_hub")
    name, _, revision = name.partition("@")
    with _loading("ltp", name):
        folder = hub.snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=["*.json", "*.txt", "pytorch_model.bin", "cws_model.bin"],
        )
    return Path(folder)


def _ltp_perceptron(file: Path, words: Sequence[tuple[str, int]]) -> Cut:
    library = _import("ltp", "ltp_extension.perceptron")
    with _loading("ltp", file):
        predict: Cut = library.CWSModel.load(str(file)).predict
    if not words:
        return predict
    hook = _import("ltp", "ltp_extension.algorithms").Hook()
    for word, frequency in words:
        hook.add_word(word, frequency)
    return lambda sentence: list(hook.hook(sentence, predict(sentence)))


def _ltp_neural(folder: Path, config: dict[str, Any], words: Sequence[tuple[str, int]]) -> Cut:
    library = _import("ltp", "ltp.nerual")
    transformers = _import("ltp", "transformers")
    torch = _import("ltp", "torch")
    with _loading("ltp", folder):
        # What LTP's own loader does, with the config that was looked at and no pickled code.
        ltp = library.LTP(config=config)
        ltp.tokenizer = tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder),
            config=ltp.model.backbone.config,
            local_files_only=True,
            trust_remote_code=False,
        )
        file = folder / "pytorch_model.bin"
        state = torch.load(file, map_location="cpu", weights_only=True)
        missing = ltp.model.load_state_dict(state, strict=False).missing_keys
        ltp.eval()
    heads = [key for key in missing if "task_heads." not in key or "task_heads.cws." in key]
    _refuse_missing("ltp", folder, heads)
    if not hasattr(tokenizer, "batch_encode_plus"):
        # transformers 5 has no such name any more, and LTP 4.2.14 asks for it.
        tokenizer.batch_encode_plus = tokenizer.__call__
    for word, frequency in words:
        ltp.add_word(word, frequency)

    def cut(sentence: str) -> list[str]:
        pieces = tokenizer.backend_tokenizer.encode(sentence)
        if len(pieces) <= 2:
            return []
        if len(pieces) > 512 or pieces.overflowing:
            # LTP would leave the rest uncut. It is long soon: 한 alone is three pieces.
            middle = len(sentence) // 2
            return cut(sentence[:middle]) + cut(sentence[middle:])
        found: list[str] = ltp.pipeline([sentence], tasks=["cws"]).cws[0]
        return found

    return cut


def _refuse_missing(segmenter: str, folder: Path, missing: Sequence[str]) -> None:
    """Weights that a checkpoint lacks stay random; nothing that counts may."""
    missing = [key for key in missing if "pooler" not in key and "position_ids" not in key]
    if missing:
        raise ZhbertError(
            f"segmenter {segmenter}: {folder}: the checkpoint lacks {len(missing)} weights "
            f"({missing[0]}, ...): a damaged model, or of another version"
        )


# ---------------------------------------------------------------- pkuseg


def load_pkuseg(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """pkuseg, by spacy-pkuseg.

    ``model``: a folder that ``spacy_pkuseg.train`` wrote, or a published name (spacy_ontonotes,
    web, news, medicine, tourism, mixed; spacy_ontonotes otherwise), which pkuseg fetches.
    """
    library = _import("pkuseg", "spacy_pkuseg")
    simplified = Traditional(traditional)
    config = library.config
    named = "spacy_ontonotes" if model is None else model
    local = None if named in config.available_models else _local("pkuseg", named)
    if local is not None:
        # The older features.pkl is a pickle, and a pickle can run code.
        _need("pkuseg", local, ["features.msgpack", "weights.npz"])
    elif named not in config.available_models:
        raise ZhbertError(
            f"segmenter pkuseg: no model '{named}': a folder, or one of "
            + ", ".join(config.available_models)
        )
    words = [simplified(word) for word, _, _ in _user_words("pkuseg", user_words)]
    with _loading("pkuseg", named):
        segmenter = library.pkuseg(str(local or named), user_dict=words or "default")
        folder = Path(config.modelDir)
    found = [folder / name for name in ("features.msgpack", "features.pkl", "weights.npz")]
    return LibrarySegmenter(
        "pkuseg",
        metadata.version("spacy-pkuseg"),
        segmenter.cut,
        traditional=simplified,
        options=_record(named, [file for file in found if file.is_file()]),
        user_words=user_words,
    )


# ---------------------------------------------------------------- THULAC

_THULAC_FILES = (
    "cws_model.bin",
    "cws_dat.bin",
    "cws_label.txt",
    "t2s.dat",
    "ns.dat",
    "idiom.dat",
    "singlepun.dat",
)


def load_thulac(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """THULAC in Python. ``model``: a folder with its files; the one in its package otherwise.

    It holds its model as Python numbers: 0.8 GB for each process.
    """
    library = _import("thulac", "thulac")
    simplified = Traditional(traditional)
    folder = Path(library.__file__).parent / "models"
    if model is not None:
        local = _local("thulac", model)
        if local is None:
            raise ZhbertError(f"segmenter thulac: {model}: no such model folder")
        folder = local
    files = _need("thulac", folder, _THULAC_FILES)
    words = _user_words("thulac", user_words)
    with _loading("thulac", folder), tempfile.TemporaryDirectory() as temporary:
        file = None
        if words:
            file = Path(temporary) / "words.txt"
            unique = dict.fromkeys(simplified(word) for word, _, _ in words)
            file.write_text("".join(f"{word}\n" for word in unique), encoding="utf-8")
        segmenter = library.thulac(
            user_dict=None if file is None else str(file), model_path=str(folder), seg_only=True
        )

    def cut(sentence: str) -> list[str]:
        return [word for word, _ in segmenter.cut(sentence)]

    return LibrarySegmenter(
        "thulac",
        metadata.version("thulac"),
        cut,
        traditional=simplified,
        options=_record("default" if model is None else model, files),
        user_words=user_words,
    )


# ---------------------------------------------------------------- HanLP

_HANLP_DEFAULT = "COARSE_ELECTRA_SMALL_ZH"
_HANLP_CLASS = "hanlp.components.tokenizers.transformer.TransformerTaggingTokenizer"


def load_hanlp(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """HanLP 2's transformer tokenizers.

    ``model``: a folder that one was saved to, an address, or a name of hanlp.pretrained.tok
    (COARSE_ELECTRA_SMALL_ZH otherwise), which HanLP fetches.
    """
    simplified = Traditional(traditional)
    library = _import("hanlp", "hanlp")
    transformer = _import("hanlp", "hanlp.components.tokenizers.transformer")
    named = _HANLP_DEFAULT if model is None else model
    local = _local("hanlp", named)
    if local is None:
        if named not in library.pretrained.tok.ALL and "://" not in str(named):
            raise ZhbertError(
                f"segmenter hanlp: no model '{named}': a folder, or a name of hanlp.pretrained.tok "
                f"such as {_HANLP_DEFAULT}"
            )
        with _loading("hanlp", named):
            local = Path(_import("hanlp", "hanlp.utils.io_util").get_resource(str(named)))
    # HanLP makes an object of whatever class the config names.
    made = _config("hanlp", local).get("classpath")
    if made != _HANLP_CLASS:
        raise ZhbertError(
            f"segmenter hanlp: {named} holds a {made}; a {_HANLP_CLASS.split('.')[-1]} is needed"
        )
    _config("hanlp", local, "vocabs.json")
    files = _need("hanlp", local, ["config.json", "model.pt", "vocabs.json"])
    missing: list[str] = []

    class Tokenizer(transformer.TransformerTaggingTokenizer):  # type: ignore[misc, name-defined]
        def load_weights(self, *arguments: Any, **options: Any) -> None:
            self.model_.register_load_state_dict_post_hook(
                lambda _, keys: missing.extend(keys.missing_keys)
            )
            super().load_weights(*arguments, **options)

    with _loading("hanlp", named):
        tokenizer = Tokenizer()
        tokenizer.load(str(local), devices=-1, verbose=False)
    _refuse_missing("hanlp", local, missing)
    words = {simplified(word) for word, _, _ in _user_words("hanlp", user_words)}
    if words:
        tokenizer.dict_force = words
    tokenizer.config.output_spans = True

    def cut(sentence: str) -> list[str]:
        # By their spans: a character of several pieces (한 has three) may come as several words.
        ends = {end for _, _, end in tokenizer([sentence])[0]}
        return [sentence[a:b] for a, b in pairwise([0, *sorted(ends)])]

    return LibrarySegmenter(
        "hanlp",
        metadata.version("hanlp"),
        cut,
        traditional=simplified,
        options=_record(named, files),
        user_words=user_words,
    )
