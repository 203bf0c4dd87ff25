"""The files of a sentence-transformers folder that concern the BERT in it, or only stand beside it.

What the modules mean is known in `zhbert.sentences`. Here they are kept when the BERT changes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import read_json, write_json
from zhbert.wording import shortly
from zhbert.zoo.layout import MODULES, module_folders, sentence_folder

CONFIG = "config_sentence_transformers.json"
TRANSFORMER_CONFIG = "sentence_bert_config.json"


def read_transformer_config(folder: Path) -> dict[str, Any]:
    """Read ``max_seq_length`` and ``do_lower_case`` of the BERT in a sentence-transformers folder.

    Raises:
        ZhbertError: a file is damaged, or a value impossible.
    """
    # Before version 2 the file was named after the architecture.
    found = [folder / TRANSFORMER_CONFIG, *sorted(folder.glob("sentence_*_config.json"))]
    path = next((file for file in found if file.is_file()), None)
    values = read_json(path, dict) if path else {}
    where, length = path or folder, values.get("max_seq_length")
    tokenizer = folder / "tokenizer_config.json"
    if length is None and tokenizer.is_file():
        # From version 5.5 on, the tokenizer's setting counts. It is huge where nobody has set it.
        where, length = tokenizer, read_json(tokenizer, dict).get("model_max_length")
        length = int(length) if isinstance(length, int | float) and length < 1 << 31 else None
    if length is not None and (type(length) is not int or length < 2):
        raise ZhbertError(
            f"{where}: max_seq_length = {shortly(length)}: must be a whole number from 2 on"
        )
    lower = values.get("do_lower_case") or False
    if not isinstance(lower, bool):
        raise ZhbertError(f"{where}: do_lower_case = {shortly(lower)}: must be true or false")
    return {"max_seq_length": length, "do_lower_case": lower}


def copy_sentence_files(model_folder: Path, out: Path, max_positions: int) -> None:
    """Copy all that a sentence model has besides its BERT, if ``model_folder`` belongs to one.

    Args:
        model_folder: the folder of the BERT.
        out: the folder of the BERT that was made from it, with the same hidden size.
        max_positions: the number of positions of the new BERT.
    """
    folder = sentence_folder(model_folder)
    if folder is None:
        return
    settings = read_transformer_config(model_folder)
    length = min(settings["max_seq_length"] or max_positions, max_positions)
    write_json(out / TRANSFORMER_CONFIG, settings | {"max_seq_length": length})
    if (folder / CONFIG).is_file():
        shutil.copyfile(folder / CONFIG, out / CONFIG)
    for place in module_folders(folder)[1:]:
        if place and (folder / place).is_dir():
            shutil.copytree(folder / place, out / place)
    modules = read_json(folder / MODULES, list)
    if modules and isinstance(modules[0], dict):
        modules[0]["path"] = ""  # the new BERT lies beside modules.json
    write_json(out / MODULES, modules)
