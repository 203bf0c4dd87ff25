"""From raw text to masked batches, in this order:

* files: ``sources`` finds and decodes them, ``records`` finds the texts in them (with
  ``json_records``, ``tables``, ``articles``, ``parquet``), with the options in ``read_options``;
* documents: ``blocks`` cuts the input at their ends, ``outline`` finds their lines and sentences;
* a corpus folder: ``block_worker`` turns a block into a shard, ``prepare`` puts the folder
  together (with ``pools``, ``ray_pool``, ``corpus_folder``, ``duplicates``, ``scatter``,
  ``held_out``, ``account``, ``remarks``), ``shards`` writes and reads it;
* rows: ``examples`` (with ``row_plans`` and ``random_streams``), and their order, ``row_order``;
* masked batches: ``masking``, ``loader``, and ``evaluation`` for held-out rows.

The other modules read text for other purposes (``texts``, ``vocabulary``, ``first_look``,
``mask_text``), or show a corpus (``corpus_figures``, ``cloze``) and give it to other libraries
(``corpus_tables``).
"""

SPLITS = ("train", "held_out")
"""The two parts of a corpus."""
ENGINES = ("local", "ray")
"""Where a corpus can be prepared: on this machine, or on a Ray cluster."""
