"""F2, an edited copy of the reference engine, with a writer of its own and AMP: before."""

import sys

import torch
from f1_meters import MetricLogger, SmoothedValue
from shapes import loader, make_model


def train_one_epoch(model, optimizer, data_loader, epoch, scaler, log):
    model.train()
    metric_logger = MetricLogger(delimiter="  ")
    metric_logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    for images, targets in metric_logger.log_every(data_loader, 2, f"Epoch: [{epoch}]"):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=scaler.is_enabled()):
            loss_dict = model(list(images), list(targets))
            losses = sum(loss_dict.values())
        optimizer.zero_grad()
        scaler.scale(losses).backward()
        scaler.step(optimizer)
        scaler.update()
        metric_logger.update(loss=losses, **loss_dict)
        metric_logger.update(lr=optimizer.param_groups[0]["lr"])
    log.append(metric_logger.meters["loss"].global_avg)


def main(steps: int, epochs: int) -> None:
    train = loader(2 * steps, shuffle=True)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    log: list[float] = []
    for epoch in range(epochs):
        train_one_epoch(model, optimizer, train, epoch, scaler, log)
    print("mean losses:", log)


if __name__ == "__main__":
    main(steps=int(sys.argv[1]) if len(sys.argv) > 1 else 5, epochs=2)
