"""Upload a model to the Hugging Face hub, with its card.

  zhbert push runs/lcqmc user/lcqmc-rbt3
  zhbert push runs/phase-2/final user/my-bert --private

MODEL is a model folder, or a run folder of 'zhbert finetune', which stands for
its best seed on dev. Only the files that belong to a model are uploaded, and
its README.md: read that before. A repository that does not exist is made.

These environment variables are respected: HF_TOKEN (or log in with 'hf auth
login'), HF_ENDPOINT, HF_HOME, HTTPS_PROXY.
"""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="the folder of a model or of a run")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the model's name on the hub")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="upload to this branch")
    parser.add_argument("--message", metavar="TEXT", help="the message of the commit")


def run(args: argparse.Namespace) -> int:
    """Upload the model and print its address."""
    from zhbert import console, terminal
    from zhbert.finetuning.locate import locate_fine_tuned
    from zhbert.zoo.upload import push_to_hub

    quiet = args.quiet or args.json
    folder = locate_fine_tuned(args.model, remark=terminal.say_nothing if quiet else terminal.say)
    address = push_to_hub(
        folder,
        args.repo_id,
        commit_message=args.message,
        private=args.private or None,
        revision=args.revision,
        quiet=quiet,
    )
    if args.json:
        console.print_json({"folder": str(folder), "address": address})
    else:
        sys.stdout.write(f"{address}\n")
    return 0
