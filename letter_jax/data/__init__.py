"""Data sets: reading any source, preparation, storage, leave-one-out splits, and batches for training.

`sources.py` dispatches on `config.data.source` to a reader: `synthetic.py`, `letter_format.py`, or `raw/read.py` for
raw files. Each gives a `dataset.Dataset`, which `store.py` writes to a workdir. `beam/` prepares raw files that are too
large for one machine, and writes the same tables.
"""
