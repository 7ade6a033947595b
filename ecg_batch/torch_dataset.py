"""A finished dataset for torch's DataLoader."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from ecg_batch.read import OpenDataset
from ecg_batch.statements import SUPERCLASSES


class ECGDataset(Dataset):
    """Items {"signal": float32 (12, time) mV, "labels": float32 (5,) multi-hot in the order of SUPERCLASSES,
    "record_id": int}.

    ECGDataset(open_dataset(path)) or of a selection: ECGDataset(open_dataset(path).where(label="MI")).
    """

    label_names = SUPERCLASSES

    def __init__(self, dataset: OpenDataset):
        self.dataset = dataset
        table = dataset.columns(["record", *SUPERCLASSES])
        columns = [table[name].to_numpy(zero_copy_only=False) for name in SUPERCLASSES]
        self.labels = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))  # (record, 5)
        self.record_ids = table["record"].to_numpy()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """A batch in one read: a DataLoader asks for it. Records of the same chunk are then decoded once."""
        signals = torch.from_numpy(self.dataset[np.asarray(indices)])  # (record, 12, time)
        return [
            {"signal": signal, "labels": self.labels[index], "record_id": int(self.record_ids[index])}
            for signal, index in zip(signals, indices, strict=True)
        ]
