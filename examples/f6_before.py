"""F6, a trainer class: before."""

import sys

import torch
from shapes import loader, make_model


class Trainer:
    """Trains, epoch by epoch."""

    def __init__(self, model, optimizer, train) -> None:
        self.model, self.optimizer, self.train_loader = model, optimizer, train
        self.history: list[float] = []

    def step(self, images, targets) -> float:
        """One optimizer step."""
        losses = self.model(images, targets)
        loss = sum(losses.values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def run_epoch(self) -> None:
        """One pass over the data."""
        self.model.train()
        values = [self.step(images, targets) for images, targets in self.train_loader]
        self.history.append(sum(values) / len(values))

    def fit(self, epochs: int) -> None:
        """All epochs."""
        for epoch in range(epochs):
            self.run_epoch()
            print(f"epoch {epoch + 1}: {self.history[-1]:.4f}")


def main(steps: int, epochs: int) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    Trainer(model, optimizer, loader(2 * steps, shuffle=True)).fit(epochs)


if __name__ == "__main__":
    main(steps=int(sys.argv[1]) if len(sys.argv) > 1 else 5, epochs=2)
