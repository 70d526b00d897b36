import itertools

import torch

from megatron import mpu
from megatron.data.data_utils import build_train_valid_test_data_loaders
from megatron.initialize import initialize_megatron
from megatron.logging import training_log
from megatron.model.gpt2_model import GPT2ModelPipe, cross_entropy


def pretrain(neox_args):
    initialize_megatron(neox_args=neox_args)
    loaders = build_train_valid_test_data_loaders(neox_args=neox_args)
    model = GPT2ModelPipe(neox_args)
    optimizer = torch.optim.SGD(model.parameters(), lr=neox_args.optimizer["params"]["lr"])
    train, valid = (loader and itertools.cycle(loader) for loader in (loaders["train"], loaders["valid"]))
    totals = {}
    while neox_args.iteration < neox_args.train_iters:
        loss_dict, skipped = train_step(
            neox_args=neox_args, timers=None, data_iterator=train, model=model, optimizer=optimizer, lr_scheduler=None
        )
        neox_args.iteration += 1
        training_log(
            neox_args=neox_args, timers=None, loss_dict=loss_dict, total_loss_dict=totals, learning_rate=0.0,
            iteration=neox_args.iteration, loss_scale=None, report_memory_flag=True, skipped_iter=skipped, model=model,
            optimizer=optimizer, noise_scale_logger=None,
        )  # fmt: skip
        if valid and neox_args.iteration % neox_args.eval_interval == 0:
            evaluate(neox_args, valid, model)


def get_batch_pipe(data, neox_args, curr_scheduler=None):
    tokens, labels, loss_mask, attention_mask, position_ids = _get_batch(neox_args, None, ["text"], data, torch.int64)
    return (tokens, position_ids, attention_mask), (labels, loss_mask)


def _get_batch(neox_args, tokenizer, keys, data, datatype, label_mask_zero=False):
    data = mpu.broadcast_data(keys, data, datatype)
    text = data[keys[0]]
    labels = data[keys[1]] if len(keys) > 1 else text
    loss_mask = (labels[:, 1:] >= 0).float()
    return text[:, :-1].contiguous(), labels[:, 1:].clamp(min=0), loss_mask, None, None


def forward_step(data_iterator, model, neox_args, timers, return_logits=False, is_train=False, reference_model=None):
    keys = ["text", "label"] if neox_args.train_label_data_paths and is_train else ["text"]
    tokens, labels, loss_mask, _, _ = _get_batch(neox_args, None, keys, next(data_iterator), torch.int64)
    return cross_entropy(model(tokens), (labels, loss_mask), _fp16=neox_args.fp16_lm_cross_entropy), {}


def train_step(neox_args, timers, data_iterator, model, optimizer, lr_scheduler, reference_model=None):
    optimizer.zero_grad()
    losses = []
    for _ in range(neox_args.gradient_accumulation_steps):
        loss, _ = forward_step(data_iterator, model, neox_args, timers, is_train=True)
        (loss / neox_args.gradient_accumulation_steps).backward()
        losses.append(loss.detach())
    optimizer.step()
    return {"lm_loss": torch.stack(losses).mean()}, 0


def evaluate(neox_args, data_iterator, model):
    with torch.no_grad():
        losses = [
            forward_step(data_iterator=data_iterator, model=model, neox_args=neox_args, timers=None)[0]
            for _ in range(neox_args.eval_iters)
        ]
    return {"lm_loss": torch.stack(losses).mean().item()}
