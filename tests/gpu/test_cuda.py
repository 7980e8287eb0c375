"""Logging from a CUDA device: never waits for it, and reads what `.item()` reads.

Skipped where there is no CUDA device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import losslog

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),  # torch calls it a prototype, once
    pytest.mark.filterwarnings("ignore::UserWarning:torch.profiler"),
]
NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")


@pytest.fixture
def no_sync() -> Iterator[None]:
    """Any synchronising CUDA call raises, from whichever torch call it is made."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def quiet_run(folder: Path, plugins: Any = None, **options: Any) -> losslog.Run:
    return losslog.Run("gpu", dir=folder, plugins=plugins, **options)


def logged(run: losslog.Run) -> list[dict[str, Any]]:
    """The data of all batch records in the journal."""
    records = [json.loads(line) for line in (run.dir / "journal.jsonl").read_text("ascii").splitlines()]
    return [record["data"] for record in records if record["hook"] == "on_batch_losses"]


def losses_on_device(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    values = torch.rand(len(NAMES), device="cuda", generator=generator, requires_grad=False)
    weights = values.clone().requires_grad_()
    return {name: weights[index] * 2.0 for index, name in enumerate(NAMES)}


def test_two_hundred_steps_with_every_plugin_never_synchronise(
    tmp_path: Path, no_sync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = {"mlflow": {"tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}}
    names = ["console", "tensorboard", "wandb", "mlflow", "plateau"]
    run = quiet_run(tmp_path, names, options=options, epochs=1, steps_per_epoch=200)
    kept = []
    for step in range(200):
        losses = losses_on_device(step)
        run.log_batch(losses, lr=0.1)
        kept.append({name: value.detach() for name, value in losses.items()})
    assert run.flush(120)
    torch.cuda.set_sync_debug_mode("default")
    run.close()
    expected = [{name: value.item() for name, value in losses.items()} for losses in kept]
    assert [data["losses"] for data in logged(run)] == expected


def test_changes_in_place_after_the_call_are_not_seen(tmp_path: Path) -> None:
    run = quiet_run(tmp_path)
    loss = torch.tensor(3.0, device="cuda")
    for _ in range(100):
        run.log_batch({"a": loss})
        loss.add_(1.0)
    run.close()
    assert [data["losses"]["a"] for data in logged(run)] == [3.0 + step for step in range(100)]


def test_values_on_device_and_host_mix(tmp_path: Path) -> None:
    run = quiet_run(tmp_path)
    half = torch.tensor(0.5, device="cuda", dtype=torch.float16)
    run.log_batch({"a": torch.tensor(1.5, device="cuda"), "b": 2.0, "c": half, "d": torch.tensor(4.0)}, total=8.0)
    run.close()
    assert [data["losses"] for data in logged(run)] == [{"a": 1.5, "b": 2.0, "c": 0.5, "d": 4.0}]


def test_logging_on_a_side_stream_reads_what_that_stream_computed(tmp_path: Path) -> None:
    run = quiet_run(tmp_path)
    streams = [torch.cuda.Stream() for _ in range(3)]
    matrix = torch.rand(1024, 1024, device="cuda")
    torch.cuda.synchronize()
    expected = []
    for step in range(30):
        with torch.cuda.stream(streams[step % 3]):
            work = matrix
            for _ in range(5):
                work = work @ matrix / 512  # long enough for the copy to come too early, were it not ordered
            loss = work.mean()
            run.log_batch({"a": loss})
            expected.append(loss)
    run.close()
    torch.cuda.synchronize()
    assert [data["losses"]["a"] for data in logged(run)] == [value.item() for value in expected]


def test_capturing_a_graph_says_what_to_do_instead(tmp_path: Path) -> None:
    run = quiet_run(tmp_path)
    static = torch.ones((), device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        output = static * 2
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = static * 2
        with pytest.raises(losslog.LosslogError, match="captured"):
            run.log_batch({"a": output})
    for step in range(3):  # the capture was not broken, and the graph's outputs can be logged
        static.fill_(step)
        graph.replay()
        run.log_batch({"a": output})
    run.close()
    assert [data["losses"]["a"] for data in logged(run)] == [0.0, 2.0, 4.0]


def test_a_capture_survives_values_that_are_read_meanwhile(tmp_path: Path) -> None:
    run = quiet_run(tmp_path)
    static = torch.ones((), device="cuda")
    torch.cuda.synchronize()
    for _ in range(20):
        run.log_batch({"a": static * 3})
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = static * 2
        assert run.flush(10)  # the drain thread waits for the copies made before
    graph.replay()
    assert output.item() == 2.0
    run.close()
    assert [data["losses"]["a"] for data in logged(run)] == [3.0] * 20


def test_kernels_launched_in_a_step_are_few_and_constant(tmp_path: Path) -> None:
    from torch.profiler import ProfilerActivity, profile

    run = quiet_run(tmp_path)
    losses = losses_on_device(0)
    for _ in range(10):
        run.log_batch(losses)
    assert run.flush(30)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(20):
            run.log_batch(losses)
        torch.cuda.synchronize()
    run.close()
    launches = sum(event.count for event in profiler.key_averages() if "LaunchKernel" in event.key)
    copies = sum(event.count for event in profiler.key_averages() if event.key.startswith("cudaMemcpy"))
    assert launches <= 20  # one stack
    assert copies <= 20  # one copy to the host


def test_no_graph_is_kept_alive(tmp_path: Path) -> None:
    run = quiet_run(tmp_path)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        big = torch.rand(1 << 20, device="cuda", requires_grad=True)
        run.log_batch({"a": (big * big).mean()})
        del big
    assert run.flush(30)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 4 << 20
    run.close()


def test_epoch_means_are_those_of_the_values(tmp_path: Path) -> None:
    run = quiet_run(tmp_path)
    kept = []
    for step in range(100):
        losses = losses_on_device(step)
        run.log_batch(losses)
        kept.append({name: value.item() for name, value in losses.items()})
    means = run.epoch_means(60)
    run.close()
    expected = {name: sum(each[name] for each in kept) / len(kept) for name in NAMES}
    assert means == pytest.approx(expected, rel=1e-12)
