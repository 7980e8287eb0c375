from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import losslog  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    # pycocotools 2.0.11 on numpy 2.4, in mask.decode
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small layers: a second thread mostly waits, and results then hang on how work was split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TwoLosses(torch.nn.Module):
    """A regression with a dict of two losses in train mode and predictions in eval mode; has batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2)
        )
        self.left = torch.nn.Linear(8, 1)
        self.right = torch.nn.Linear(8, 1)

    def forward(self, x: Any, y: Any = None) -> Any:
        hidden = self.body(x)
        left, right = self.left(hidden)[:, 0], self.right(hidden)[:, 0]
        if not self.training:
            return torch.stack([left, right], dim=1)
        noise = 0.01 * torch.randn(())  # as a detector's sampling, from the global generator
        return {"loss_left": ((left - y) ** 2).mean() + noise**2, "loss_right": (right + y).abs().mean()}


class OneLoss(torch.nn.Module):
    """A scalar loss."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)

    def forward(self, x: Any, y: Any) -> Any:
        return ((self.linear(x)[:, 0] - y) ** 2).mean()


@pytest.fixture
def two_losses() -> Any:
    torch.manual_seed(0)
    return TwoLosses()


@pytest.fixture
def one_loss() -> Any:
    torch.manual_seed(0)
    return OneLoss()


@pytest.fixture
def loader() -> Any:
    """24 samples in batches of 4, shuffled by the global generator."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 4, generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1)), batch_size=4, shuffle=True)


@pytest.fixture
def open_run(tmp_path: Path) -> Callable[..., losslog.Run]:
    """Makes a run with the journal alone."""

    def make(**arguments: Any) -> losslog.Run:
        return losslog.Run("test", tmp_path / "runs", **{"plugins": None, "follower": False, **arguments})

    return make


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file can grow beyond so many bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(room: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


MEASURED = {"reach", "grad_norm", "update_ratio", "unchanged", "dead_units", "targets"}


def records_of(run: losslog.Run) -> list[dict[str, Any]]:
    """Without what is measured by component and part at the first steps of an epoch."""
    found = [json.loads(line) for line in (run.dir / "journal.jsonl").read_text().splitlines()]
    return [
        each for each in found
        if each["hook"] != "on_metrics"
        or not all("/" in tag and tag.partition("/")[0] in MEASURED for tag in each["data"]["metrics"])
    ]  # fmt: skip


@pytest.fixture
def records() -> Callable[[losslog.Run], list[dict[str, Any]]]:
    return records_of


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from losslog.detection import write_shapes

    return write_shapes(tmp_path_factory.mktemp("shapes"), train=12, val=4, image_size=64, seed=3)
