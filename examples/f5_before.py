"""F5, a plain loop with a GradScaler, clipping and accumulation: before."""

import sys

import torch
from shapes import loader, make_model

ACCUMULATE = 2


def main(steps: int, epochs: int) -> None:
    train = loader(2 * ACCUMULATE * steps, shuffle=True)
    model = make_model()
    groups = [
        {"params": list(model.backbone.parameters()), "lr": 0.001, "name": "backbone"},
        {"params": [*model.rpn.parameters(), *model.roi_heads.parameters()], "name": "heads"},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for epoch in range(epochs):
        model.train()
        running = 0.0
        for index, (images, targets) in enumerate(train):
            loss = sum(model(images, targets).values()) / ACCUMULATE
            scaler.scale(loss).backward()
            running += loss.item()  # a common slip: this is half of the loss
            if (index + 1) % ACCUMULATE == 0:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        print(f"epoch {epoch + 1}: {running / len(train):.4f}")


if __name__ == "__main__":
    main(steps=int(sys.argv[1]) if len(sys.argv) > 1 else 5, epochs=1)
