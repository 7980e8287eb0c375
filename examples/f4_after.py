"""F4, a plain loop with a SummaryWriter that gets epoch means: after. Two lines, the same writer."""

import sys

import torch
from shapes import loader, make_model
from torch.utils.tensorboard import SummaryWriter

import losslog


def main(steps: int, epochs: int, logs: str) -> None:
    train = loader(2 * steps, shuffle=True)
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0005)
    writer = SummaryWriter(logs)
    run = losslog.attach(model, optimizer, name="f4", options={"tensorboard": {"writer": writer}})
    for epoch in range(epochs):
        model.train()
        running = 0.0
        for images, targets in train:
            optimizer.zero_grad()
            losses = sum(model(images, targets).values())
            losses.backward()
            optimizer.step()
            running += losses.item()
        writer.add_scalar("Loss/train", running / len(train), epoch)
        print(f"epoch {epoch + 1}: {running / len(train):.4f}")
    run.close()
    writer.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, 2, sys.argv[2] if len(sys.argv) > 2 else "logs")
