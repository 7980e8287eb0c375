"""``losslog run`` runs a script as python does, and logs what it trains."""

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT.parent / "shared" / "data"
MODEL = """
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)
    def forward(self, x):
        y = self.linear(x)
        return {"loss_a": (y[:, 0] ** 2).mean(), "loss_b": y.std()} if self.training else [y]
def train(model, epochs=2):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(torch.arange(48.0).reshape(12, 4) / 48, 4)
    for epoch in range(epochs):
        model.train()
        for batch in loader:
            losses = model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
torch.manual_seed(0)
"""


@pytest.fixture
def launch(tmp_path):
    """Runs python, or losslog run with the journal alone, in a folder of its own."""

    def run(*words, plain=False, options=("--plugins", ","), env=None, launcher=()):
        command = [sys.executable] if plain else [sys.executable, *launcher, "-m", "losslog", "run", *options]
        paths = os.pathsep.join([str(ROOT / "examples"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "0", **(env or {})}
        return subprocess.run(
            [*command, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=240,
            check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def script(tmp_path):
    def write(text, name="train.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def records(folder, name="train"):
    (journal,) = Path(folder).glob(f"runs/{name}/*/journal.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def of(found, hook):
    return [each["data"] for each in found if each["hook"] == hook]


@pytest.mark.parametrize(
    "body",
    [
        "import sys; print(__name__, __file__, sys.argv, sys.path[0], __package__, __spec__, sorted(globals()))",
        "raise SystemExit",
        "import sys; sys.exit(3)",
        "exit('a message')",
        "def f():\n    raise ValueError\ntry:\n    f()\nexcept ValueError as error:\n    raise KeyError(1) from error",
        "def broken(:",
        "import atexit; atexit.register(lambda: print('bye')); print('hello')",
        "import multiprocessing as m\nif __name__ == '__main__':\n    with m.Pool(1) as p: print(p.map(abs, [-1]))",
        "import warnings; warnings.warn('old'); print(__loader__.get_source('__main__')[:6])",
        "import sys; print('torch' in sys.modules, 'numpy' in sys.modules)",
    ],
)
def test_like_python(launch, script, body):
    path = script(body, "folder/train.py").relative_to(script("").parent)
    words = [path, "--name", "x", "--", "-o", "y"]
    ours, plain = launch(*words), launch(*words, plain=True)
    told = f"losslog: nothing was logged: {path} trained nothing (no backward pass, no optimizer step)\n"
    stderr = ours.stderr.replace(told, "")
    assert (ours.stdout, stderr, ours.returncode) == (plain.stdout, plain.stderr, plain.returncode)


@pytest.fixture
def package(script):
    """``pkg.train``, which trains with a model from beside it, and ``python -m pkg``."""
    script("import sys; sys.path.insert(0, 'vendored')", "pkg/__init__.py")
    script(MODEL, "pkg/model.py")
    script("from .train import *", "pkg/__main__.py")
    script(
        """
        import sys
        from .model import *
        print(__name__, __file__, sys.argv, sys.path[:2], __package__, __spec__ and __spec__.name)
        if __name__ != "__mp_main__":
            train(Model())
        if "spawn" in sys.argv:
            import torch.multiprocessing as m
            if __name__ == "__main__":
                m.spawn(print, nprocs=1)
        sys.exit(3)
        """,
        "pkg/train.py",
    )


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("module", "words"), [("pkg.train", []), ("pkg.train", ["spawn"]), ("pkg", ["-m", "--name", "x"])]
)
def test_a_module_like_python(launch, package, tmp_path, module, words):
    ours, plain = launch("-m", module, *words), launch("-m", module, *words, plain=True)
    assert (ours.stdout, ours.returncode) == (plain.stdout, plain.returncode)
    assert len(of(records(tmp_path, "train" if "train" in module else "pkg"), "on_batch_losses")) == 6


@pytest.mark.parametrize("name", ["nowhere", "pkg.nowhere", "pkg.model.nowhere", "..", "", "__main__", "json"])
def test_a_module_that_is_not_there_is_one_line(launch, package, name):
    done = launch("-m", name)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith(f"losslog run: no module named {name!r} that can be run")
    assert done.stderr.count("\n") == 1


def test_what_a_package_raises_is_its_own(launch, script):
    script("import nosuchmodule", "broken/__init__.py")
    script("", "broken/train.py")
    done = launch("-m", "broken.train")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ModuleNotFoundError: No module named 'nosuchmodule'")


def test_ctrl_c(launch, script, tmp_path):
    script(MODEL + "import time\ntrain(Model())\nprint('ready', flush=True)\ntime.sleep(60)")
    command = [sys.executable, "-m", "losslog", "run", "--plugins", ",", "train.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    trace = errors[errors.index("Traceback") :].splitlines()
    assert trace[1].startswith(f'  File "{tmp_path}/train.py"')
    assert trace[-1] == "KeyboardInterrupt"
    found = records(tmp_path)
    assert of(found, "on_run_end")[0]["status"] == "stopped"
    assert len(of(found, "on_epoch_end")) == 2


def test_what_cannot_be_run_is_one_line(launch):
    done = launch("nowhere.py")
    assert done.returncode == 2
    assert done.stderr.startswith("losslog run: can't open file")
    done = launch("nowhere.py", options=("--plugins", "nosuch"))
    assert done.returncode == 2
    assert "no plugin named 'nosuch'" in done.stderr


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [("", 0, "finished"), ("import sys; sys.exit(1)", 1, "failed"), ("raise ValueError('boom')", 1, "failed")],
)
def test_the_run_knows_how_the_script_ended(launch, script, tmp_path, end, code, status):
    script(MODEL + "train(Model())\nprint('trained')\n" + end)
    done = launch("train.py")
    assert (done.stdout, done.returncode) == ("trained\n", code)
    found = records(tmp_path)
    assert of(found, "on_run_end")[0]["status"] == status
    assert [each["epoch"] for each in of(found, "on_batch_losses")] == [1, 1, 1, 2, 2, 2]
    assert len(of(found, "on_epoch_end")) == 2
    assert ("Traceback" in done.stderr) == ("boom" in end)
    assert "losslog/" not in done.stderr.replace("-> runs", "")


@pytest.mark.parametrize(
    "compile",
    [
        "model = torch.compile(model, backend='eager')",
        pytest.param("model.compile(backend='eager')", marks=pytest.mark.slow),
    ],
)
def test_compiled_models_are_found(launch, script, tmp_path, compile):
    script(MODEL + f"model = Model()\n{compile}\ntrain(model)")
    done = launch("train.py")
    assert done.returncode == 0, done.stderr
    assert "hooks" not in done.stderr  # torch warns of those on all modules
    assert len(of(records(tmp_path), "on_batch_losses")) == 6


def test_losses_of_criteria_and_of_other_modules(launch, script, tmp_path):
    script(
        """
        import torch
        class Dice(torch.nn.Module):
            def forward(self, y): return y.mean()
        class Focal(torch.nn.Module):
            def forward(self, y): return y.std()
        net, dice, focal, plain = torch.nn.Linear(4, 2), Dice(), Focal(), torch.nn.MSELoss()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for x in torch.ones(3, 2, 4):
            y = net(x + torch.arange(8).reshape(2, 4))
            optimizer.zero_grad()
            (dice(y) + focal(y) + plain(y, y * 0)).backward()
            optimizer.step()
        """
    )
    assert launch("train.py").returncode == 0
    batches = of(records(tmp_path), "on_batch_losses")
    assert [set(each["losses"]) for each in batches] == [{"Dice", "Focal", "MSELoss"}] * 3


def test_a_loss_that_no_module_returns_is_recorded_all_the_same(launch, script, tmp_path):
    script(
        """
        import torch
        net = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(net(torch.ones(1, 4)), torch.zeros(1, 2))
            loss.backward()
            optimizer.step()
            print(loss.item())
        """
    )
    done = launch("train.py")
    batches = of(records(tmp_path), "on_batch_losses")
    assert [each["losses"] for each in batches] == pytest.approx([float(line) for line in done.stdout.split()])


SPOILED = """
import torch
class Spoiled(torch.nn.Module):
    def forward(self, x, by):
        return x / by
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm, self.spoil = torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2), Spoiled()
    def forward(self, x, targets):
        y = self.spoil(self.norm(self.body(x)), x.new_tensor([each["by"] for each in targets])[:, None])
        return {"loss_a": (y[:, 0] ** 2).mean(), "loss_b": y.abs().mean()}
torch.manual_seed(0)
model = Model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(8):
    targets = [{"by": float(step not in BAD), "image_id": 4 * step + at} for at in range(4)]
    losses = model(torch.rand(4, 4), targets)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    for each in model.parameters():
        each.grad.nan_to_num_(0, 0, 0)
    optimizer.step()
print([each.tolist() for each in model.state_dict().values()], torch.rand(1).item())
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("does", [None, "warn", "stop", "trace"])
def test_what_a_loss_that_is_not_finite_does(launch, script, tmp_path, does):
    path = script(f"BAD = (3,)\n{SPOILED}")
    done = launch(path, options=("--plugins", ",", *(("--non-finite", does) if does else ())))
    plain = launch(path, plain=True)
    assert (done.stdout, done.returncode) == (plain.stdout, 0)  # weights, statistics, random numbers: all as without us
    found = records(tmp_path)
    alerts = of(found, "on_alert")
    assert len(of(found, "on_batch_losses")) == 8
    first = alerts[0]
    assert (first["key"], first["level"], first["step"]) == ("non_finite/loss_a,loss_b", "error", 3)
    assert first["text"].startswith("loss_a, loss_b are inf at step 3 (epoch 1).")
    assert first["title"] == "loss_a and 1 other are inf"
    traces = [each for each in alerts if each.get("cause") == "not_finite_in"]
    assert len(traces) == (does == "trace")
    for each in traces:
        assert (each["step"], each["title"]) == (3, "loss_a is not finite: spoil")
        assert each["text"].startswith("The first output that is not finite is that of spoil (Spoiled)")
        assert (each["evidence"]["module"], each["evidence"]["images"]) == ("spoil", [12, 13, 14, 15])
    assert of(found, "on_run_end")[0]["status"] == "finished"
    asked = "nobody looked at run.should_stop: a request to stop was not seen (a loss was not finite at step 3)"
    assert (asked in done.stderr) == (does == "stop")
    assert f", {'2 alerts' if does == 'trace' else '1 alert'}: " in done.stderr.splitlines()[-1]


def test_losses_that_stay_finite_are_traced_nowhere(launch, script, tmp_path):
    path = script(f"BAD = ()\n{SPOILED}")
    done = launch(path, options=("--plugins", ",", "--non-finite", "trace"))
    assert (done.stdout, done.returncode) == (launch(path, plain=True).stdout, 0)
    assert not of(records(tmp_path), "on_alert")


def test_what_a_loss_that_is_not_finite_cannot_do_is_one_line(launch, script):
    done = launch(script("print(1)"), options=("--non-finite", "skip"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "losslog run: argument --non-finite: invalid choice: 'skip': there are warn, stop, trace"
    )
    assert done.stderr.count("\n") == 1


def test_a_script_without_a_backward_pass_is_told_and_left_alone(launch, script, tmp_path):
    script(
        """
        import torch
        net = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(30):
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        print("done")
        """
    )
    done = launch("train.py")
    assert done.stdout == "done\n"
    assert done.stderr.count("run.log_batch(losses)") >= 1
    assert not (tmp_path / "runs").exists()


def test_a_script_that_uses_losslog_is_left_alone(launch, script, tmp_path):
    script(MODEL + "import losslog\nmodel = Model()\n"
           "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
           "with losslog.attach(model, optimizer, name='own', plugins=None):\n"
           "    for _ in range(3):\n"
           "        sum(model(torch.ones(2, 4)).values()).backward()\n"
           "        optimizer.step()\n")  # fmt: skip
    assert launch("train.py").returncode == 0
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["own"]
    assert len(of(records(tmp_path, "own"), "on_batch_losses")) == 3


def test_names_and_folders(launch, script, tmp_path):
    script(MODEL + "import os\nos.makedirs('elsewhere')\nos.chdir('elsewhere')\ntrain(Model(), 1)")
    done = launch("train.py", options=("--plugins", ",", "--name", "mine", "--epochs", "7"))
    assert done.returncode == 0
    assert of(records(tmp_path, "mine"), "on_run_start")[0]["epochs"] == 7


def test_a_requeued_script_that_loads_nothing_begins_anew(launch, script, tmp_path):
    script(MODEL + "import os\ntrain(Model())\nif not os.path.exists('second'):\n    open('second', 'w')\n"
           "    os._exit(9)\n")  # fmt: skip
    words = ("--plugins", ",", "--resume", "auto")
    assert launch("train.py", options=words).returncode == 9
    done = launch("train.py", options=words)
    assert done.returncode == 0
    assert "the script has loaded no checkpoint of" in done.stderr
    assert len([*(tmp_path / "runs" / "train").glob("2*")]) == 2


def test_a_run_that_is_not_there_to_resume_is_one_line(launch, script):
    script("print('ran')")
    done = launch("train.py", options=("--resume", "nosuch"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("losslog run: no run 'nosuch'")


@pytest.mark.parametrize("how", [pytest.param("torchrun", marks=pytest.mark.slow), "spawn"])
def test_two_processes_are_one_run(launch, tmp_path, how):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = launch(HERE / "scripts" / "ranks.py", port, launcher=torchrun if how == "torchrun" else ())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("LOSSES") == 10
    found = records(tmp_path, "ranks")
    batches, ends = of(found, "on_batch_losses"), of(found, "on_epoch_end")
    assert {each["epoch"] for each in ends} == {1, 2}
    assert batches[0]["ranks"] == 2
    printed = [line.split(" ", 3) for line in done.stdout.splitlines() if line.startswith("LOSSES")]
    first = {rank: ast.literal_eval(next(p[3] for p in printed if p[1:3] == [rank, "0"])) for rank in "01"}
    assert batches[0]["losses"] == {
        "loss_a": pytest.approx((first["0"][0] + first["1"][0]) / 2),
        "loss_mask": first["0"][1],
        "loss_box": first["1"][1],
    }
    assert [each["status"] for each in of(found, "on_run_end")] == ["finished"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["nuclei", pytest.param("fruitsnuts", marks=pytest.mark.slow)])
def test_a_tutorial_script_on_real_pictures(launch, tmp_path, until, kind):
    if not (DATA / kind).is_dir():
        pytest.skip(f"no {kind} beside the repository")
    words = [HERE / "scripts" / "tutorial.py", DATA / kind, tmp_path / "model.pth"]
    plain = launch(*words, plain=True)
    ours = launch(*words, options=("--plugins", "tensorboard,console"))
    assert plain.returncode == 0, plain.stderr
    untimed = [re.sub(r"t=\d+\.\d+s", "t", done.stdout) for done in (ours, plain)]  # pycocotools' own stop-watch
    assert untimed[0] == untimed[1]
    assert "Epoch 2" in ours.stderr
    found = records(tmp_path, "tutorial")
    printed = [ast.literal_eval(line[6:]) for line in ours.stdout.splitlines() if line.startswith("FOUND ")]
    batches, ends, evals = (of(found, hook) for hook in ("on_batch_losses", "on_epoch_end", "on_eval"))
    assert len(batches) == 6
    assert all(len(each["losses"]) == 5 and each["lr"] > 0 for each in batches)
    for end, evaluation, shown in zip(ends, evals, printed, strict=True):
        assert end["losses"] == {name: shown["means"][name] for name in end["losses"]}
        assert {name: each["AP"] for name, each in evaluation["metrics"].items()} == shown["ap"]
    assert [each["path"] for each in of(found, "on_checkpoint")] == [str(tmp_path / "model.pth")] * 2
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = tmp_path.glob("runs/tutorial/*/tensorboard")
    events = EventAccumulator(str(folder))
    wanted = {"loss/train_loss_mask", "loss/train_total", "lr", "mAP/bbox_AP", "mAP/segm_AP"}
    until(lambda: wanted <= set(events.Reload().Tags()["scalars"]), "TensorBoard has every series")
    steps = EventAccumulator(str(folder / "batch")).Reload().Scalars("batch/train_loss_mask")
    assert [each.value for each in steps] == [pytest.approx(each["losses"]["loss_mask"]) for each in batches]
    points = [(each.step, each.value) for each in events.Scalars("loss/train_loss_mask")]
    assert points == [(n, pytest.approx(each["means"]["loss_mask"])) for n, each in enumerate(printed, start=1)]


@pytest.mark.parametrize("launcher", [("-m", "losslog"), ("-c", "from losslog.cli import main; main()")])
def test_imports_look_where_plain_python_looks(tmp_path, script, launcher):
    for folder in ("beside", "first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"in_{folder}.py").write_text("")
    path = script("import in_beside, in_first, in_second, sys; print(sys.path[0])", "beside/train.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, (tmp_path / "first", tmp_path / "second", ROOT))]),
    }
    words = [sys.executable, *launcher, "run", "--plugins", ",", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"{path.parent}\n"), done.stderr
