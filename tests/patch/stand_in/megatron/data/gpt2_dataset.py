import numpy as np


class GPT2Dataset:
    """Samples of seq_length + 1 tokens: windows over the shuffled documents, or (unpacked) one document each."""

    def __init__(self, documents, indexed_dataset, num_samples, seq_length, seed, packed=True, label_dataset=None):
        self.indexed_dataset = indexed_dataset
        self.label_dataset = label_dataset
        self.seq_length = seq_length
        sizes = indexed_dataset.sizes
        rng = np.random.RandomState(seed)
        if packed:
            epochs = 1 + num_samples * seq_length // sizes[documents].sum()
            self.doc_idx = rng.permutation(np.tile(documents, epochs)).astype(np.int32)
            ends = np.cumsum(sizes[self.doc_idx])
            places = np.arange((ends[-1] - 1) // seq_length + 1) * seq_length
            document = np.searchsorted(ends, places, side="right")
            self.sample_idx = np.stack([document, places - (ends - sizes[self.doc_idx])[document]], axis=1)
        else:
            self.doc_idx = np.resize(documents, num_samples + 1)
            self.sample_idx = np.stack([np.arange(num_samples + 1), np.zeros(num_samples + 1, int)], axis=1)
        self.shuffle_idx = rng.permutation(len(self.sample_idx) - 1)

    def __len__(self):
        return len(self.shuffle_idx)

    def __getitem__(self, idx):
        try:
            idx = self.shuffle_idx[idx]
            (first, offset), (last, end) = self.sample_idx[idx], self.sample_idx[idx + 1]
            sample = {"text": self._read(self.indexed_dataset, first, offset, last, end, 0)}
            if self.label_dataset is not None:
                sample["label"] = self._read(self.label_dataset, first, offset, last, end, -100)
            return sample
        except IndexError:
            return self[idx % len(self)]

    def _read(self, source, first, offset, last, end, padding):
        size = self.seq_length + 1
        whole = np.concatenate([source.get(self.doc_idx[place]) for place in range(first, last + 1)])
        tail = source.sizes[self.doc_idx[last]] - end - 1
        part = whole[offset : len(whole) - tail][:size]
        return np.pad(part.astype(np.int64), (0, size - len(part)), constant_values=padding)
