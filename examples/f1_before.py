"""F1, the reference engine unmodified: before."""

import sys

import torch
from f1_engine import evaluate, train_one_epoch
from shapes import loader, make_model


def main(steps: int, epochs: int) -> None:
    train, test = loader(2 * steps, shuffle=True), loader(2, seed=1)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for epoch in range(epochs):
        train_one_epoch(model, optimizer, train, "cpu", epoch, print_freq=1)
        schedule.step()
        evaluate(model, test, "cpu")


if __name__ == "__main__":
    main(steps=int(sys.argv[1]) if len(sys.argv) > 1 else 5, epochs=2)
