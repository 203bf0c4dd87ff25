"""Make src/zhbert/assets/traditional.txt: traditional -> simplified, character by character.

Needs OpenCC (Apache-2.0), whose t2s conversion decides for each character on its own::

    python tools/make_traditional_table.py
"""

from __future__ import annotations

from pathlib import Path

import opencc

TABLE = Path(__file__).parent.parent / "src" / "zhbert" / "assets" / "traditional.txt"
RANGES = [(0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0)]
# Written so in simplified text too, in words that the segmenter knows (乾隆, 乾坤): OpenCC tells
# 乾燥 from 乾隆 by phrases, a table of characters cannot.
KEPT = "乾"

HEADER = """\
# Traditional character, simplified character: what OpenCC's t2s makes of each one on its own
# (https://github.com/BYVoid/OpenCC, Apache-2.0). Made by tools/make_traditional_table.py.
"""


def main() -> None:
    """Write the table."""
    convert = opencc.OpenCC("t2s").convert
    pairs = []
    for first, end in RANGES:
        for code in range(first, end):
            traditional = chr(code)
            simplified = convert(traditional)
            if simplified != traditional and len(simplified) == 1 and traditional not in KEPT:
                pairs.append(traditional + simplified + "\n")
    TABLE.write_text(HEADER + "".join(pairs), encoding="utf-8", newline="\n")
    print(f"{TABLE.name}: {len(pairs):,} characters")


if __name__ == "__main__":
    main()
