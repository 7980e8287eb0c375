"""F3, a plain loop that prints: after. Two lines around the loop."""

import sys

import torch
from shapes import loader, make_model

import losslog


def main(steps: int, epochs: int) -> None:
    train, val = loader(2 * steps, shuffle=True), loader(2, seed=1)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    run = losslog.attach(model, optimizer, name="f3", epochs=epochs)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for images, targets in train:
            loss_dict = model(images, targets)
            losses = sum(loss for loss in loss_dict.values())
            optimizer.zero_grad()
            losses.backward()
            optimizer.step()
            total += losses.item()
        with torch.no_grad():  # detection models give losses in train mode only
            val_loss = sum(sum(model(*batch).values()).item() for batch in val) / len(val)
        print(f"epoch {epoch + 1}: loss {total / len(train):.4f}, val loss {val_loss:.4f}")
    run.close()


if __name__ == "__main__":
    main(steps=int(sys.argv[1]) if len(sys.argv) > 1 else 5, epochs=2)
