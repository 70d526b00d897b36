import torch

lines = []


def training_log(
    neox_args, timers, loss_dict, total_loss_dict, learning_rate, iteration, loss_scale, report_memory_flag,
    skipped_iter, model, optimizer, noise_scale_logger,
):  # fmt: skip
    """Adds up, and every log_interval iterations keeps the means as a line of `lines`."""
    total_loss_dict["skipped iterations"] = total_loss_dict.get("skipped iterations", 0) + skipped_iter
    if not skipped_iter:
        for key, value in loss_dict.items():
            assert isinstance(value, torch.Tensor)
            total_loss_dict[key] = total_loss_dict.get(key, 0.0) + value
    if iteration % neox_args.log_interval == 0:
        divisor = max(1, neox_args.log_interval - total_loss_dict.pop("skipped iterations"))
        lines.append({key: float(value) / divisor for key, value in total_loss_dict.items()})
        for key in total_loss_dict:
            total_loss_dict[key] = 0.0
    return report_memory_flag
