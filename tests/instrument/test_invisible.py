"""What other tools see of a watched model: nothing."""

import contextlib
import copy
import io
import pickle

import pytest
import torch
from torch import nn

import losslog


class Net(nn.Module):
    """Small enough for every tool: a scalar loss from a batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x).relu().pow(2).mean()


@pytest.fixture(params=["looking", "settled", "closed"])
def watched(request, watch, capfd):
    """A model under attach: while all modules are looked at, when only it is watched, and afterwards."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    for _ in range(1 if request.param == "looking" else 25):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).backward()
        optimizer.step()
    if request.param == "closed":
        run.close()
    capfd.readouterr()
    yield model
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    assert "failed" not in captured.err.replace("losslog: finished", "")


X = torch.ones(3, 4)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("of", [lambda model: model, copy.deepcopy])
def test_scripting(watched, of):
    scripted = torch.jit.script(of(watched))
    assert scripted(X).item() == pytest.approx(watched(X).item())
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_tracing(watched):
    assert torch.jit.trace(watched, X)(X).item() == pytest.approx(watched(X).item())


@pytest.mark.parametrize("strict", [True, False])
def test_export(watched, strict):
    exported = torch.export.export(watched, (X,), strict=strict)
    assert exported.module()(X).item() == pytest.approx(watched(X).item())


def test_fx(watched):
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), watched))
    assert [node.op for node in traced.graph.nodes].count("call_module") == 2
    assert torch.fx.symbolic_trace(watched)(X).item() == pytest.approx(watched(X).item())


def test_function_transforms(watched):
    parameters = dict(watched.named_parameters())

    def loss(values, x):
        return torch.func.functional_call(watched, values, (x,))

    one = torch.func.grad(loss)(parameters, X)
    assert one["layer.weight"].shape == (2, 4)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, torch.randn(5, 3, 4))
    assert each["layer.weight"].shape == (5, 2, 4)
    assert torch.func.vmap(watched)(torch.randn(5, 3, 4)).shape == (5,)


def test_pickling_and_copying(watched, tmp_path):
    torch.save(watched, tmp_path / "model.pt")
    assert torch.load(tmp_path / "model.pt", weights_only=False)(X).item() == pytest.approx(watched(X).item())
    text = pickle.dumps(watched)
    assert b"losslog" not in text
    made = copy.deepcopy(watched)
    assert vars(made).keys() == vars(watched).keys()
    assert not made._forward_hooks
    assert not made._forward_pre_hooks
    torch.optim.swa_utils.AveragedModel(watched)
    loss = watched(X)
    assert loss._backward_hooks is None
    pickle.dumps(loss.detach())


@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiling(watched, fullgraph):
    torch._dynamo.reset()
    count = []

    def backend(graph, inputs):
        count.append(1)
        return graph.forward

    compiled = torch.compile(watched, backend=backend, fullgraph=fullgraph)
    for _ in range(3):
        compiled(X).backward()
    assert len(count) == 1
    explained = torch._dynamo.explain(watched)(X)
    assert explained.graph_break_count == 0
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_step_compiled_whole_breaks_where_it_would(watch):
    """``backward`` in a compiled function breaks the graph, with and without us, as often."""

    def breaks(attached):
        torch._dynamo.reset()
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        run = watch(model, optimizer) if attached else contextlib.nullcontext()

        def step(x):
            loss = model(x)
            loss.backward()
            return loss

        with run:
            found = torch._dynamo.explain(step)(X)
        return found.graph_count, found.graph_break_count

    assert breaks(True) == breaks(False)
    torch._dynamo.reset()


def test_fake_tensors(watched):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        watched(torch.ones(3, 4)).backward()
    watched.zero_grad()


def test_a_class_with_a_call_of_its_own(watch, read):
    class Own(Net):
        def __call__(self, *args):
            return 2 * super().__call__(*args)

    model = Own()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    call = Own.__call__
    run = watch(model, optimizer)
    loss = model(X)
    loss.backward()
    optimizer.step()
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == [loss.item()]
    assert Own.__call__ is call


def test_somebody_replaces_module_call_while_we_look(watch, read):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    ours, seen = nn.Module.__call__, []

    def theirs(self, *args, **kwargs):
        seen.append(type(self))
        return ours(self, *args, **kwargs)

    nn.Module.__call__ = theirs
    try:
        loss = model(X)
        loss.backward()
        optimizer.step()
    finally:
        nn.Module.__call__ = ours
    run.close()
    assert Net in seen
    assert [each["total"] for each in read(run, "on_batch_losses")] == [loss.item()]


def test_a_data_parallel_vector_is_its_mean(watch, read):
    """What `DataParallel` gathers on several GPUs: one value for each."""

    class DataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return torch.stack([self.module(x), self.module(x) * 3])

    model = DataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    loss = model(X).mean()
    loss.backward()
    optimizer.step()
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == [pytest.approx(loss.item())]


def test_losslog_is_gone_afterwards():
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl
    assert losslog.instrument.calls._watched == {}
