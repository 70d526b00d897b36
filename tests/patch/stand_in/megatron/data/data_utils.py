import numpy as np
import torch

from ifguide.data.indexed import IndexedDataset
from megatron.data.gpt2_dataset import GPT2Dataset


class Indexed:
    """What GPT2Dataset reads: sizes, and documents by number."""

    def __init__(self, prefix):
        self._dataset = IndexedDataset.open(prefix)
        self.sizes = self._dataset.lengths.astype(np.int32)

    def get(self, document):
        return self._dataset.document(int(document))


class Blend:
    """Datasets in turns."""

    def __init__(self, datasets):
        self.datasets = datasets

    def __len__(self):
        return sum(map(len, self.datasets))

    def __getitem__(self, idx):
        return self.datasets[idx % len(self.datasets)][idx // len(self.datasets)]


def build_the_dataset(data_prefix, num_samples, seq_length, seed, pack_impl, label_prefix=None):
    indexed = Indexed(data_prefix)
    return GPT2Dataset(
        np.arange(len(indexed.sizes)), indexed, num_samples, seq_length, seed, pack_impl == "packed",
        None if label_prefix is None else Indexed(label_prefix),
    )  # fmt: skip


def build_train_valid_test_datasets(data_prefix, splits_string, num_samples, seq_length, seed):
    indexed = Indexed(data_prefix)
    shares = np.cumsum([0.0, *map(float, splits_string.split(","))])
    ends = np.rint(shares / shares[-1] * len(indexed.sizes)).astype(int)
    return [
        GPT2Dataset(np.arange(begin, end), indexed, samples, seq_length, seed) if end > begin else None
        for begin, end, samples in zip(ends, ends[1:], num_samples)
    ]


def build_weighted_datasets(neox_args, train_num_samples, valid_num_samples, test_num_samples):
    def build(paths, labels, num_samples):
        return [
            build_the_dataset(path, num_samples, neox_args.seq_length, neox_args.seed, neox_args.pack_impl, label)
            for path, label in zip(paths or [], labels or [None] * len(paths or []))
        ]

    return (
        build(neox_args.train_data_paths, neox_args.train_label_data_paths, train_num_samples),
        build(neox_args.valid_data_paths, None, valid_num_samples),
        build(neox_args.test_data_paths, None, test_num_samples),
    )


def build_train_valid_test_data_loaders(neox_args):
    batch = neox_args.train_micro_batch_size_per_gpu
    train = neox_args.train_iters * neox_args.gradient_accumulation_steps * batch
    evaluation = (neox_args.train_iters // neox_args.eval_interval + 1) * neox_args.eval_iters * batch
    if neox_args.train_data_paths:
        blends = map(Blend, build_weighted_datasets(neox_args, train, evaluation, evaluation))
        datasets = [blend if blend.datasets else None for blend in blends]
    else:
        datasets = build_train_valid_test_datasets(
            neox_args.data_path, neox_args.split, [train, evaluation, evaluation], neox_args.seq_length, neox_args.seed
        )
    loaders = [dataset and torch.utils.data.DataLoader(dataset, batch_size=batch) for dataset in datasets]
    return dict(zip(("train", "valid", "test"), loaders))
