import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Union

import torch
import yaml

from .template import NeoXArgsTemplate


class Letters:
    """A tokenizer that does not list its tokens."""

    eod = 0

    @property
    def vocab(self):
        raise NotImplementedError


@dataclass
class NeoXArgsTraining(NeoXArgsTemplate):
    data_path: str = None
    train_data_paths: list = None
    train_label_data_paths: list = None
    train_reward_data_paths: list = None
    train_data_weights: list = None
    valid_data_paths: list = None
    test_data_paths: list = None
    split: str = "8,1,1"
    data_impl: str = "infer"
    dataset_impl: str = "gpt2"
    pack_impl: str = "packed"
    train_impl: Literal["normal", "dpo", "rm", "kto", "reinforce"] = "normal"
    precompute_model_name: str = None
    weight_by_num_documents: bool = False
    train_iters: int = None
    train_micro_batch_size_per_gpu: int = 4
    gradient_accumulation_steps: int = 1
    log_interval: int = 1
    eval_interval: int = 1000
    eval_iters: int = 1
    seed: int = 1234
    eod_mask_loss: bool = False
    fp16_lm_cross_entropy: bool = False
    num_gpus: int = None
    master_port: int = 29500
    distributed_backend: str = "nccl"
    user_script: str = None
    tokenizer_type: str = None
    vocab_file: str = None
    merge_file: str = None
    tensorboard_dir: str = None
    save: str = None
    load: str = None
    finetune: bool = False


@dataclass
class NeoXArgsModel(NeoXArgsTemplate):
    seq_length: int = None
    hidden_size: int = 16
    vocab_size: int = 512
    pipe_parallel_size: int = 0
    model_parallel_size: int = 1
    precision: str = "fp32"
    attention_config: list = None
    optimizer: dict = None


BASE_CLASSES = [NeoXArgsTraining, NeoXArgsModel]
NEOX_ARG_CLASSES = list(BASE_CLASSES)


@dataclass
class NeoXArgs(*BASE_CLASSES):
    def __post_init__(self):
        self.iteration = 0
        if not (self.validate_types() and self.validate_values()):
            raise ValueError("the configuration is not valid")

    @property
    def is_pipe_parallel(self):
        return self.pipe_parallel_size >= 1

    def validate_types(self):
        for name, field in self.__dataclass_fields__.items():
            value = getattr(self, name)
            plain = type(value) is field.type or (type(value) is int and field.type is float)
            choice = getattr(field.type, "__origin__", None) is Literal and value in field.type.__args__
            choice |= getattr(field.type, "__origin__", None) is Union and type(value) in field.type.__args__
            if not (value is None or plain or choice):
                return False
        return True

    def validate_values(self):
        assert self.seq_length, "seq_length is required"
        return True

    @classmethod
    def from_ymls(cls, paths_to_yml_files, overwrite_values=None):
        values = {}
        for path in paths_to_yml_files:
            with open(path) as stream:
                values.update(yaml.safe_load(stream))
        return cls(**{**values, **(overwrite_values or {})})

    @classmethod
    def consume_deepy_args(cls, input_args=None):
        parser = argparse.ArgumentParser()
        parser.add_argument("user_script")
        parser.add_argument("-d", "--conf_dir", default="")
        parser.add_argument("conf_file", nargs="+")
        given = parser.parse_args(input_args)
        paths = [Path(given.conf_dir, path) for path in given.conf_file]
        return cls.from_ymls(paths, {"user_script": given.user_script})

    @classmethod
    def consume_neox_args(cls):
        parser = argparse.ArgumentParser()
        parser.add_argument("--megatron_config")
        return cls(**json.loads(parser.parse_known_args()[0].megatron_config))

    def encoded(self):
        return json.dumps(asdict(self))

    def configure_distributed_args(self):
        self.rank = int(os.environ.get("RANK", "0"))

    def build_tokenizer(self):
        self.tokenizer, self.padded_vocab_size = Letters(), self.vocab_size

    def initialize_tensorboard_writer(self):
        self.world_size = torch.cuda.device_count()
