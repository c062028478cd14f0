"""RecTools' own preparation of data for its SASRec. Runs in the rival's own environment (`.rectools`), alone.

Reads the interactions of a data set, makes RecTools' `Dataset` of them and lets SASRec's preparator filter, sort and
map them and make the sequences that it trains on, with the configuration's longest history. Prints a line of JSON with
the seconds; nothing is written, as RecTools writes nothing.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import pandas as pd


def prepare(interactions: Path, length: int) -> int:
    """Seconds count from the file to the training sequences; answers their number."""
    from rectools.dataset import Dataset
    from rectools.models.nn.transformers.sasrec import SASRecDataPreparator

    table = pd.read_parquet(interactions, columns=["user_id", "item_id", "timestamp", "engagement"])
    table = table.rename(columns={"timestamp": "datetime", "engagement": "weight"})
    table["datetime"] = table["datetime"].dt.tz_localize(None)
    preparator = SASRecDataPreparator(session_max_len=length, batch_size=128, dataloader_num_workers=0)
    preparator.process_dataset_train(Dataset.construct(table))
    return len(preparator.get_dataloader_train().dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--length", type=int, default=1000)
    options = parser.parse_args()
    import rectools.models  # noqa: F401  imports count for nobody

    warnings.simplefilter("ignore")
    began = time.perf_counter()
    sequences = prepare(options.interactions, options.length)
    print(json.dumps({"seconds": time.perf_counter() - began, "sequences": sequences}))


if __name__ == "__main__":
    main()
