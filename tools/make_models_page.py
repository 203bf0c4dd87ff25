"""Make docs/models.md from the cards of src/zhbert/zoo/models.toml::

python tools/make_models_page.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zhbert.files import write_text
from zhbert.model.published import compare_parameters, count_parameters, score_facts, scores_of
from zhbert.zoo.catalogue import CLASSES, FORMS, ModelCard, cards

PAGE = Path(__file__).parent.parent / "docs" / "models.md"

HEAD = """\
# The models 模型一览

<!-- Made by tools/make_models_page.py from src/zhbert/zoo/models.toml: change that file. -->

The model that is a part of this package, and every one that
[Chinese-BERT-wwm](https://github.com/ymcui/Chinese-BERT-wwm) and
[Chinese-PreTrained-BERT](https://github.com/ShenDezhou/Chinese-PreTrained-BERT) publish,
as `zhbert models` lists them; `zhbert models NAME` shows one of them, `zhbert download NAME` gets
it. A name works in any spelling: `RBT3`, `hfl/rbt3`, `RoBERTa-wwm-ext`, `bert-tiny-cn`, and the
name of an archive without its `.zip`.

- **forms**: here = in this package; hub = the Hugging Face hub; pt, tf = an archive with PyTorch
  or TensorFlow 1 weights; paddle = a PaddleHub module (listed, but zhbert does not fetch those).
- **pieces**: the vocabulary's size. No mark: stated, or known of that public checkpoint. `*`: the
  known vocabulary with which the shape counts to the published figure. `~`: solved for from the
  figure; no known vocabulary fits.
- **counted**: parameters of the shape with the pooler, without the heads of pretraining.
- **licence**: of `zhbert-mini` Apache-2.0 (of its texts: its own README); the two READMEs state
  none for any of the others, so ask their owners.
"""

MARKS = {"published": "", "deduced": "*", "estimated": "~"}


def page() -> str:
    """The whole of docs/models.md."""
    parts = [HEAD]
    for source in dict.fromkeys(card.source for card in cards()):
        chosen = [card for card in cards() if card.source == source]
        parts += [f"## {source}\n", _table(chosen), *filter(None, map(_scores, chosen))]
    parts += ["## Where the published count needs a word 参数量\n", _counts()]
    strangers = [card for card in cards() if not card.opens_here]
    lines = [f"- `{card.name}`: {CLASSES[card.architecture][0]}\n" for card in strangers]
    parts += ["## Not BERTs\n", "zhbert downloads these but cannot open them; transformers can.\n"]
    parts += ["".join(lines)]
    headless = ", ".join(f"`{card.name}`" for card in cards() if card.fills_masks is False)
    parts += [
        "## No trained head for masks\n",
        f"The published files of {headless} hold no trained mask-filling head, or a random one. "
        "What they fill in is noise until the head is trained; embedding and fine-tuning need "
        "none. They are BERTs, whatever their names say: open them with Bert classes.\n",
    ]
    return "\n".join(parts)


def _table(chosen: list[ModelCard]) -> str:
    rows = [
        ("model", "language", "size", "layers x width, heads", "pieces", "published", "counted",
         "trained on", "owner", "forms", "recipe"),
        ("---", "---", "---", "---", "---:", "---:", "---:", "---", "---", "---", "---"),
    ]  # fmt: skip
    for card in chosen:
        figure = (card.parameters or "").partition(" ")[0]
        also = f" ({card.display_name})" if card.display_name else ""
        rows.append(
            (
                f"`{card.name}`{also}",
                card.language,
                card.size,
                f"{card.num_layers} x {card.hidden_size}, {card.num_heads}",
                f"{MARKS[card.vocab_size_from]}{card.vocab_size:,}",
                figure,
                f"{count_parameters(card):,}",
                card.trained_on or "not stated",
                card.owner,
                " ".join(map(_link(card), card.forms)),
                f"`{card.recipe}`" if card.recipe else "",
            )
        )
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _scores(card: ModelCard) -> str:
    facts = score_facts(scores_of(card) or {})
    return "".join(f"- {what}: {figure}\n" for what, figure in facts)


def _link(card: ModelCard) -> Callable[[str], str]:
    def link(form: str) -> str:
        place = getattr(card, FORMS[form])
        if form in ("here", "paddle"):
            return form
        return f"[{form}]({place if '://' in place else f'https://huggingface.co/{place}'})"

    return link


def _counts() -> str:
    told: dict[str, list[str]] = {}
    for card in cards():
        text = compare_parameters(card)
        if card.parameters and not text.endswith("without the heads, rounded."):
            told.setdefault(text, []).append(f"`{card.name}`")
    return "".join(f"- {', '.join(names)}: {text}\n" for text, names in told.items())


def main() -> None:
    """Write the page."""
    write_text(PAGE, page())
    print(f"{PAGE.name}: {len(cards())} models")


if __name__ == "__main__":
    main()
