"""Download a published model by catalogue name, hub id, URL or archive.

zhbert download rbt3 --out models/rbt3
zhbert download bert_tiny_cn --format tensorflow --out tiny-tf
zhbert download https://example.org/model.zip
zhbert download model.tgz --out model       (a local archive)

An interrupted download is resumed when the command runs again. Without --out
the model stays in the cache, and every verb can open it by the same name, even
without a network. The URL of an archive may end in its checksum:
https://example.org/model.zip#sha256=0f3a... (64 hex digits)

These environment variables are respected: HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE, HTTPS_PROXY, REQUESTS_CA_BUNDLE, and ZHBERT_CACHE (the folder
for archives, by default ~/.cache/zhbert).
"""

from __future__ import annotations

import argparse

from zhbert.wording import without_secrets
from zhbert.zoo.origin import FORMS, origin_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="catalogue name, hub id, URL or archive")
    parser.add_argument("--out", metavar="DIR", help="write the model into this folder")
    parser.add_argument(
        "--format",
        choices=tuple(FORMS),
        help="for models that the catalogue has in both formats (default: pytorch)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Download the model and print its folder."""
    from zhbert import console, terminal
    from zhbert.model.folder import check_out
    from zhbert.zoo import locate, save
    from zhbert.zoo.layout import find_model

    quiet = args.quiet or args.json
    if origin_of(args.name, args.format).kind == "package" and not quiet:
        terminal.say(
            f"{args.name}: a part of zhbert, nothing to download: every verb accepts this name"
        )
    if args.out:
        # Checked before downloading.
        out = check_out(args.out, args.name, overwrite=args.overwrite)
        folder = save(args.name, out, form=args.format, replace=args.overwrite, quiet=quiet)
    else:
        folder = locate(args.name, form=args.format, quiet=quiet)
    model = find_model(folder)
    size = sum(file.stat().st_size for file in model.folder.iterdir() if file.is_file())
    if args.json:
        console.print_json(
            {
                "name": without_secrets(args.name),
                "folder": str(model.folder),
                "format": model.format,
                "weights": str(model.weights),
                "bytes": size,
            }
        )
    else:
        text = f"{model.folder}  ({model.format}, {size / 1e6:,.1f} MB)"
        console.out().print(text, soft_wrap=True)
    return 0
