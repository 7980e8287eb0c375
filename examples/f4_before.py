"""F4, a plain loop with a SummaryWriter that gets epoch means: before."""

import sys

import torch
from shapes import loader, make_model
from torch.utils.tensorboard import SummaryWriter


def main(steps: int, epochs: int, logs: str) -> None:
    train = loader(2 * steps, shuffle=True)
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0005)
    writer = SummaryWriter(logs)
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
    writer.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, 2, sys.argv[2] if len(sys.argv) > 2 else "logs")
