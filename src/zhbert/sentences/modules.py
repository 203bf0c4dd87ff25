"""What a sentence-transformers folder says besides its BERT: modules.json and the files it names.

Folders of sentence-transformers 2 to 6 are read: https://sbert.net/docs/sentence_transformer. What
is written opens in all of these versions: they know each other's older names, not the newer ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules import activation

from zhbert.errors import ZhbertError
from zhbert.files import make_folder, read_json, write_json
from zhbert.model.sentence_files import CONFIG, TRANSFORMER_CONFIG, read_transformer_config
from zhbert.sentences.pooling import POOLING_MODES, check_modes
from zhbert.sentences.similarity import SIMILARITIES
from zhbert.wording import listed, shortly
from zhbert.zoo.layout import MODULES, read_module_entries, sentence_folder

_WRITTEN_BY = "5.0.0"
# The names of the modes in older files, in the order in which such files concatenate them.
_POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize", "StaticEmbedding")
# Far beyond any width of vectors; a greater number would only exhaust the memory.
_WIDEST = 1_000_000
_OF_SENTENCES = (None, "sentence_embedding")


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """A linear map of the sentence vectors, with an activation."""

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    """The dotted name of a class of torch.nn."""
    use_residual: bool = False
    """Add the input to the output, through a linear map of its own if the widths differ."""


@dataclass(frozen=True)
class NormalizeConfig:
    """Scaling of the sentence vectors to the length 1."""


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """What a sentence model has besides its BERT; the defaults are for a plain BERT."""

    pooling: tuple[str, ...] = ("mean",)
    """Modes of `zhbert.sentences.pooling`, concatenated in this order."""
    include_prompt: bool = True
    """Whether the pieces of a prompt are pooled."""
    projections: tuple[DenseConfig | NormalizeConfig, ...] = ()
    """The modules behind the pooling, in order."""
    max_seq_length: int | None = None
    """The number of pieces to which texts are cut; None: as many as the BERT takes."""
    do_lower_case: bool = False
    """Convert texts to lower case, even if the tokenizer does not."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Texts to put before a text, by name."""
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    """The number of dimensions to keep; None: all."""

    def embedding_dimension(self, hidden_size: int) -> int:
        """Return the number of dimensions of a sentence vector before truncation."""
        dense = [one for one in self.projections if isinstance(one, DenseConfig)]
        return dense[-1].out_features if dense else hidden_size * len(self.pooling)

    def check(self, hidden_size: int, where: str) -> None:
        """Raise a ZhbertError if a Dense does not fit what it is given."""
        width = hidden_size * len(self.pooling)
        for dense in self.projections:
            if isinstance(dense, DenseConfig):
                if dense.in_features != width:
                    raise ZhbertError(
                        f"{where}: a Dense of in_features = {dense.in_features:,}, but the vectors "
                        f"before it have {width:,} dimensions: the folder mixes two models"
                    )
                width = dense.out_features


@dataclass(frozen=True)
class Module:
    """One entry of modules.json."""

    kind: str
    """``Transformer``, ``Pooling``, ``Dense``, ``Normalize`` or ``StaticEmbedding``"""
    folder: Path
    """Its folder, which may be missing if the module has no settings."""


def read_modules(folder: Path) -> list[Module]:
    """Read modules.json: a Transformer, a Pooling, and any number of Dense and Normalize.

    Raises:
        ZhbertError: other modules, or a damaged file.
    """
    path = folder / MODULES
    modules = _known_modules(folder)
    kinds = [module.kind for module in modules]
    first, others = kinds[:2], {"Transformer", "Pooling", "StaticEmbedding"} & set(kinds[2:])
    if first != ["Transformer", "Pooling"] or others:
        raise ZhbertError(
            f"{path}: the modules are {listed(kinds) or 'missing'}; known are folders with a "
            "Transformer, a Pooling, and then Dense and Normalize"
        )
    return modules


def is_static(folder: Path) -> bool:
    """Return whether a folder has static vectors of pieces instead of a BERT."""
    return [kind for kind, _ in read_module_entries(folder)][:1] == ["StaticEmbedding"]


def read_static_config(folder: Path) -> SentenceConfig:
    """Read the prompts and the like of a folder of static vectors.

    Raises:
        ZhbertError: further modules, or a damaged file.
    """
    modules = _known_modules(folder)
    if len(modules) != 1 or modules[0].folder != folder:
        raise ZhbertError(
            f"{folder / MODULES}: a StaticEmbedding is known here alone, and in the folder itself"
        )
    return SentenceConfig(**_read_model_config(folder / CONFIG))


def write_static_config(folder: Path, config: SentenceConfig) -> None:
    """Write the settings and modules.json of a folder of static vectors."""
    write_json(folder / CONFIG, _model_values(config))
    kind = "sentence_transformers.models.StaticEmbedding"
    write_json(folder / MODULES, [{"idx": 0, "name": "0", "path": "", "type": kind}])


def _known_modules(folder: Path) -> list[Module]:
    path = folder / MODULES
    modules = []
    for number, entry in enumerate(read_json(path, list, "a list of modules")):
        kind, place = (entry.get(k) if isinstance(entry, dict) else None for k in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ZhbertError(f"{path}: module {number}: needs a type and a path, both texts")
        known = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers.") or known not in _KINDS:
            raise ZhbertError(
                f"{path}: module {number} is a {shortly(kind)}, which is not known here; known: "
                f"{listed(_KINDS)}"
            )
        inside = folder / place
        if not inside.resolve().is_relative_to(folder.resolve()):
            raise ZhbertError(f"{path}: module {number}: {shortly(place)} leads out of the folder")
        modules.append(Module(known, inside))
    return modules


def read_sentence_config(model_folder: Path, hidden_size: int) -> SentenceConfig | None:
    """Read the sentence model that a BERT's folder belongs to; None: it is a plain BERT.

    Args:
        model_folder: the folder with the BERT's config.json, as found by `zhbert.zoo.locate`.
        hidden_size: the BERT's.

    Raises:
        ZhbertError: a file is damaged, or describes what is not known here.
    """
    folder = sentence_folder(model_folder)
    if folder is None:
        return None
    transformer, pooling, *rest = read_modules(folder)
    modes, include_prompt = _read_pooling(pooling.folder / "config.json", hidden_size)
    config = SentenceConfig(
        pooling=modes,
        include_prompt=include_prompt,
        projections=tuple(_read_projection(module) for module in rest),
        **read_transformer_config(transformer.folder),
        **_read_model_config(folder / CONFIG),
    )
    config.check(hidden_size, str(folder / MODULES))
    return config


def dense_folders(model_folder: Path) -> list[Path]:
    """Return the folders of the Dense modules of a sentence model, in order."""
    folder = sentence_folder(model_folder)
    modules = read_modules(folder) if folder else []
    return [module.folder for module in modules if module.kind == "Dense"]


def _read_pooling(path: Path, hidden_size: int) -> tuple[tuple[str, ...], bool]:
    values = read_json(path, dict, "the settings of a Pooling module")
    width = values.get("embedding_dimension", values.get("word_embedding_dimension"))
    if width != hidden_size:
        raise ZhbertError(
            f"{path}: the vectors of pieces are said to have {shortly(width)} dimensions, but "
            f"config.json says hidden_size = {hidden_size:,}: the folder mixes two models"
        )
    modes = values.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, flag in _POOLING_FLAGS.items() if values.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list):
        raise ZhbertError(f"{path}: pooling_mode = {shortly(modes)}: must be a list of names")
    check_modes([str(mode) for mode in modes], str(path))
    return tuple(modes), _typed(values, "include_prompt", bool, path, True)


def _read_projection(module: Module) -> DenseConfig | NormalizeConfig:
    path = module.folder / "config.json"
    needed = module.kind == "Dense"
    values = read_json(path, dict) if needed or path.is_file() else {}
    for key in ("module_input_name", "module_output_name"):
        if values.get(key) not in _OF_SENTENCES:
            raise ZhbertError(
                f"{path}: {key} = {shortly(values[key])}: only vectors of sentences are known here"
            )
    if not needed:
        return NormalizeConfig()
    config = DenseConfig(
        in_features=_typed(values, "in_features", int, path),
        out_features=_typed(values, "out_features", int, path),
        bias=_typed(values, "bias", bool, path, True),
        activation_function=_typed(
            values, "activation_function", str, path, DenseConfig.activation_function
        ),
        use_residual=_typed(values, "use_residual", bool, path, False),
    )
    if not 1 <= config.out_features <= _WIDEST:
        raise ZhbertError(f"{path}: out_features = {config.out_features}: no width of vectors")
    activation_named(config.activation_function, str(path))
    return config


def activation_named(name: str, where: str) -> nn.Module:
    """Return a new activation of torch.nn by its dotted name, or nn.Identity.

    Raises:
        ZhbertError: there is no such activation, or it needs arguments.
    """
    kind = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn.") else None
    module = getattr(kind, "__module__", None)
    if not isinstance(kind, type) or (module != activation.__name__ and kind is not nn.Identity):
        raise ZhbertError(
            f"{where}: activation_function = {shortly(name)} is not known; known are the "
            "activations of torch.nn, such as torch.nn.modules.activation.Tanh"
        )
    try:
        made: nn.Module = kind()
    except TypeError:
        raise ZhbertError(
            f"{where}: activation_function = {shortly(name)} needs arguments"
        ) from None
    return made


def _read_model_config(path: Path) -> dict[str, Any]:
    """Read the prompts, the similarity function and the dimension to truncate to."""
    values = read_json(path, dict) if path.is_file() else {}
    kind = values.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ZhbertError(
            f"{path}: a {shortly(kind)}, not a SentenceTransformer: sentence_transformers' class "
            "of that name opens it"
        )
    prompts = _typed(values, "prompts", dict, path, {})
    prompts = {name: "" if text is None else text for name, text in prompts.items()}
    for name, text in prompts.items():
        if not isinstance(text, str):
            raise ZhbertError(f"{path}: prompts: {shortly(name)} is {shortly(text)}: not a text")
    default = _typed(values, "default_prompt_name", str, path, None)
    check_prompt_name(default, prompts, f"{path}: default_prompt_name")
    name = _typed(values, "similarity_fn_name", str, path, None)
    truncate_dim = _typed(values, "truncate_dim", int, path, None)
    if truncate_dim is not None and truncate_dim < 1:
        raise ZhbertError(f"{path}: truncate_dim = {truncate_dim}: must be 1 or more")
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": name if name in SIMILARITIES else None,
        "truncate_dim": truncate_dim,
    }


def check_prompt_name(name: str | None, prompts: Mapping[str, str], where: str) -> None:
    """Raise a ZhbertError if there is no prompt of that name."""
    if name is not None and name not in prompts and name not in ("query", "document"):
        known = f"it has {listed(prompts)}" if prompts else "it has none"
        raise ZhbertError(f"{where} = {shortly(name)}: the model has no such prompt; {known}")


def _typed(values: Mapping[str, Any], key: str, kind: type, where: Path, default: Any = ...) -> Any:
    """Return a value of the given type, or the default if it is missing or null."""
    value = values.get(key)
    if value is None and default is not ...:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        named = {int: "a whole number", bool: "true or false", str: "a text", dict: "an object"}
        said = "missing" if value is None else f"{shortly(value)}"
        raise ZhbertError(f"{where}: {key} is {said}: must be {named[kind]}")
    return value


def write_sentence_config(folder: Path, config: SentenceConfig, hidden_size: int) -> list[Path]:
    """Write modules.json and what it names, without weights; return the folders for Dense's."""
    transformer = {"max_seq_length": config.max_seq_length, "do_lower_case": config.do_lower_case}
    write_json(folder / TRANSFORMER_CONFIG, transformer)
    write_json(folder / CONFIG, _model_values(config))
    kinds = ["Dense" if isinstance(p, DenseConfig) else "Normalize" for p in config.projections]
    kinds = ["Transformer", "Pooling", *kinds]
    paths = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds) if number)]
    contents = [_pooling_values(config, hidden_size), *map(_projection_values, config.projections)]
    for path, values in zip(paths[1:], contents, strict=True):
        make_folder(folder / path)
        write_json(folder / path / "config.json", values)
    entries = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    # Last, since it makes the folder a sentence model.
    write_json(folder / MODULES, entries)
    return [folder / path for kind, path in zip(kinds, paths, strict=True) if kind == "Dense"]


def _model_values(config: SentenceConfig) -> dict[str, Any]:
    values: dict[str, Any] = {
        "__version__": {"sentence_transformers": _WRITTEN_BY},
        "model_type": "SentenceTransformer",
        "prompts": dict(config.prompts),
        "default_prompt_name": config.default_prompt_name,
        "similarity_fn_name": config.similarity_fn_name or "cosine",
    }
    if config.truncate_dim is not None:
        values["truncate_dim"] = config.truncate_dim
    return values


def _pooling_values(config: SentenceConfig, hidden_size: int) -> dict[str, Any]:
    modes: Sequence[str] = config.pooling
    values: dict[str, Any]
    if list(modes) == [mode for mode in POOLING_MODES if mode in modes]:
        flags = {flag: mode in modes for mode, flag in _POOLING_FLAGS.items()}
        values = {"word_embedding_dimension": hidden_size, **flags}
    else:  # only the newer form has an order of its own
        values = {"embedding_dimension": hidden_size, "pooling_mode": list(modes)}
    return {**values, "include_prompt": config.include_prompt}


def _projection_values(one: DenseConfig | NormalizeConfig) -> dict[str, Any]:
    return {name: value for name, value in vars(one).items() if name != "use_residual" or value}
