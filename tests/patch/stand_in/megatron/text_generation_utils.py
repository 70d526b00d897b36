import torch


def forward_model(model, model_inputs, is_pipe_parallel=False):
    return model(model_inputs[0])


def stream_tokens(neox_args, model, context_tokens, eos_token_id=None, maximum_tokens=1):
    tokens = torch.tensor(context_tokens)
    for _ in range(maximum_tokens):
        logits = forward_model(model, (tokens,))
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], 1)
        yield tokens
