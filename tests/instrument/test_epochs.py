"""Where epochs are found, and where they must be said."""

import contextlib
import itertools

import pytest
import torch


@pytest.fixture
def loop(two, data, watch, read):
    """Runs epochs over data in the way a test says; gives steps by epoch, and the epochs that ended."""
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)

    def step(batch):
        loss = sum(two(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    class Loop:
        def __init__(self):
            self.model, self.optimizer, self.step, self.run = two, optimizer, step, None
            self.train, self.val = data

        def start(self, **options):
            self.run = watch(two, optimizer, **options)

        def found(self):
            self.run.close()
            steps = [each["epoch"] for each in read(self.run, "on_batch_losses")]
            return [len(list(group)) for _, group in itertools.groupby(steps)], [
                each["epoch"] for each in read(self.run, "on_epoch_end")
            ]

    return Loop()


def test_passes_over_a_loader(loop):
    loop.start()
    for _ in range(3):
        for batch in loop.train:
            loop.step(batch)
    assert loop.found() == ([5, 5, 5], [1, 2, 3])


class Stream(torch.utils.data.IterableDataset):
    """Has no length, or one that is none."""

    def __iter__(self):
        return iter(torch.randn(20, 4))


class Vain(Stream):
    def __len__(self):
        return 0


class Broken(Stream):
    def __len__(self):
        raise RuntimeError("nobody knows")


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize("kind", [Stream, Vain, Broken])
@pytest.mark.parametrize("cycled", [False, True])
def test_a_stream_that_has_no_length(loop, caplog, kind, cycled):
    loader = torch.utils.data.DataLoader(kind(), 4)
    loop.start()
    batches = itertools.cycle(loader)
    for _ in range(3):
        for batch in itertools.islice(batches, 5) if cycled else loader:
            loop.step(batch)
    assert loop.found() == ([5, 5, 5], [1, 2, 3])
    assert not [each for each in caplog.messages if "failed" in each]


def test_a_break_ends_a_pass(loop):
    loop.start()
    for _ in range(3):
        for index, batch in enumerate(loop.train):
            if index == 2:
                break
            loop.step(batch)
    assert loop.found() == ([2, 2, 2], [1, 2, 3])


def test_a_new_loader_each_epoch(loop):
    loop.start()
    for _ in range(3):
        for batch in torch.utils.data.DataLoader(torch.randn(8, 4), 4):
            loop.step(batch)
    assert loop.found() == ([2, 2, 2], [1, 2, 3])


def test_a_new_loader_each_epoch_and_a_break(loop):
    loop.start()
    for _ in range(3):
        for batch in torch.utils.data.DataLoader(torch.randn(12, 4), 4):
            loop.step(batch)
            break
    assert loop.found() == ([1, 1, 1], [1, 2, 3])


def test_persistent_workers(loop):
    loop.start()
    train = torch.utils.data.DataLoader(torch.randn(8, 4), 4, num_workers=1, persistent_workers=True)
    for _ in range(3):
        for batch in train:
            loop.step(batch)
    assert loop.found() == ([2, 2, 2], [1, 2, 3])


def test_evaluation_in_the_middle(loop):
    loop.start()
    for _ in range(2):
        loop.model.train()
        for index, batch in enumerate(loop.train):
            loop.step(batch)
            if index == 2:
                loop.model.eval()
                for each in loop.val:
                    loop.model(each)
                loop.model.train()
    assert loop.found() == ([5, 5], [1, 2])


def test_a_validation_iterator_that_lives_on(loop):
    loop.start()
    lasting = iter(torch.utils.data.DataLoader(torch.randn(100, 4), 4))
    for _ in range(3):
        for batch in loop.train:
            loop.step(batch)
        loop.model.eval()
        loop.model(next(lasting))
        loop.model.train()
    assert loop.found() == ([5, 5, 5], [1, 2, 3])


def test_two_loaders_at_once_one_restarted(loop):
    loop.start()
    short = torch.utils.data.DataLoader(torch.randn(8, 4), 4)
    for _ in range(2):
        again = iter(short)
        for batch in loop.train:
            try:
                other = next(again)
            except StopIteration:
                again = iter(short)
                other = next(again)
            loop.step(torch.cat([batch, other]))
    assert loop.found() == ([5, 5], [1, 2])


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("size", [3, 5, 8])
def test_two_loaders_in_turn(loop, size, lasting):
    """As with labelled and unlabelled data: a step on each, the second one restarted where it ends."""
    loop.start()
    second = torch.utils.data.DataLoader(torch.randn(4 * size, 4), 4)
    again = iter(second)
    for _ in range(3):
        again = again if lasting else iter(second)
        for batch in loop.train:
            loop.step(batch)
            try:
                other = next(again)
            except StopIteration:
                again = iter(second)
                other = next(again)
            loop.step(other)
    assert loop.found() == ([10, 10, 10], [1, 2, 3])


def test_lists_and_train_calls(loop):
    batches = list(loop.train)
    loop.start()
    for _ in range(3):
        loop.model.train()
        for batch in batches:
            loop.step(batch)
        loop.model.eval()
        for each in loop.val:
            loop.model(each)
    assert loop.found() == ([5, 5, 5], [1, 2, 3])


def test_a_list_made_from_the_loader_in_each_epoch(loop):
    loop.start()
    for _ in range(3):
        for batch in list(loop.train):
            loop.step(batch)
    assert loop.found() == ([5, 5, 5], [1, 2, 3])


def test_a_cycle_says_nothing_but_the_plan_does(loop):
    loop.start(steps_per_epoch=4)
    for batch in itertools.islice(itertools.cycle(list(loop.train)), 12):
        loop.step(batch)
    assert loop.found() == ([4, 4, 4], [1, 2, 3])


def test_several_passes_an_epoch(loop):
    loop.start(passes_per_epoch=2)
    for _ in range(4):
        for batch in loop.train:
            loop.step(batch)
    assert loop.found() == ([10, 10], [1, 2])


def test_two_loaders_one_after_the_other(loop):
    loop.start(passes_per_epoch=2)
    second = torch.utils.data.DataLoader(torch.randn(8, 4), 4)
    for _ in range(2):
        for batch in itertools.chain(loop.train, second):
            loop.step(batch)
    assert loop.found() == ([7, 7], [1, 2])


def test_the_loop_says_it_itself(loop, read):
    loop.start()
    for index, batch in enumerate(itertools.chain(loop.train, loop.train)):
        loop.step(batch)
        if index == 3:
            with torch.no_grad():
                for each in loop.val:
                    loop.model(each)
            loop.run.end_epoch()
    assert loop.found() == ([4, 6], [1, 2])
    first, last = read(loop.run, "on_epoch_end")
    assert set(first["val_loss"]) == {"loss_a", "loss_b"}
    assert "val_loss" not in last


def test_only_the_last_validation_of_an_epoch_counts(loop, read):
    loop.start()
    expected = None
    for index, batch in enumerate(loop.train):
        loop.step(batch)
        if index in (1, 4):
            with torch.no_grad():
                found = [loop.model(each)["loss_a"].item() for each in loop.val]
            expected = sum(found) / len(found)
    loop.found()
    assert read(loop.run, "on_epoch_end")[0]["val_loss"]["loss_a"] == expected


def test_a_run_cut_short_has_no_last_epoch(loop, read):
    loop.start()

    def interrupted():
        with loop.run:
            for _ in range(2):
                for index, batch in enumerate(loop.train):
                    loop.step(batch)
                    if loop.run._epoch == 2 and index == 2:
                        raise KeyError("boom")

    with pytest.raises(KeyError):
        interrupted()
    assert loop.found() == ([5, 3], [1])
    assert read(loop.run, "on_run_end")[0]["status"] == "failed"


@pytest.mark.parametrize(("batches", "epochs"), [(2, 6), (5, 5), (7, 12), (40, 4)])
@pytest.mark.parametrize("train", ["never", "each step", "each epoch"])
def test_lists_in_fixed_order(loop, batches, epochs, train):
    loop.start()
    several = [torch.randn(4, 4) for _ in range(batches)]
    for _ in range(epochs):
        if train == "each epoch":
            loop.model.train()
        for batch in several:
            if train == "each step":
                loop.model.train()
            loop.step(batch)
    assert loop.found() == ([batches] * epochs, [*range(1, epochs + 1)])


@pytest.mark.parametrize("batches", [6, 9])
def test_lists_and_accumulation(loop, batches):
    loop.start()
    several = [torch.randn(4, 4) for _ in range(batches)]
    for _ in range(5):
        for index, batch in enumerate(several):
            (sum(loop.model(batch).values()) / 3).backward()
            if index % 3 == 2:
                loop.optimizer.step()
                loop.optimizer.zero_grad()
    assert loop.found() == ([batches // 3] * 5, [1, 2, 3, 4, 5])


class Anyhow(torch.nn.Module):
    """Takes a batch in many a way."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)

    def forward(self, batch=None, mask=None, **batches):
        while not isinstance(batch, torch.Tensor):
            if batch is None:
                batch = batches
            batch = batch["x"] if isinstance(batch, dict) else batch[0]
        return {"loss_a": self.linear(batch).abs().mean(), "loss_b": self.linear(batch).square().mean()}


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x, mask: model(x=x),
        lambda model, x, mask: model(mask=mask, x=x, y=x + 1),
        lambda model, x, mask: model({"mask": mask, "x": x}),
        lambda model, x, mask: model([{"x": x}, {"x": x}]),
        lambda model, x, mask: model(batch=(x, x)),
        lambda model, x, mask: model(((x, mask), x)),
    ],
)
def test_lists_by_keyword_and_in_dicts(watch, read, call):
    model, mask = Anyhow(), torch.ones(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = watch(model, optimizer)
    several = [torch.randn(4, 4) for _ in range(5)]
    for _ in range(4):
        for x in several:
            loss = sum(call(model, x, mask).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run.close()
    assert [each["epoch"] for each in read(run, "on_batch_losses")] == [
        epoch for epoch in (1, 2, 3, 4) for _ in range(5)
    ]


@pytest.mark.sampled(9)
@pytest.mark.parametrize("size", [3, 5, 8])
@pytest.mark.parametrize("late", [1, 2, 7])
@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize(
    "fetch", [itertools.cycle, lambda loader: itertools.chain.from_iterable(itertools.repeat(loader))]
)
def test_a_second_loader_joins_later(loop, late, size, fetch, first):
    """The loader that the first epoch began with says where epochs are, in whichever order the losses are computed."""
    loop.start()
    second, step = fetch(torch.utils.data.DataLoader(torch.randn(4 * size, 4), 4)), 0
    for _ in range(4):
        for batch in loop.train:
            if step < late:
                loss = sum(loop.model(batch).values())
            elif first == "old":
                loss = sum(loop.model(batch).values())
                loss = loss + 0.5 * sum(loop.model(next(second)).values())
            else:
                loss = 0.5 * sum(loop.model(next(second)).values())
                loss = loss + sum(loop.model(batch).values())
            loop.optimizer.zero_grad()
            loss.backward()
            loop.optimizer.step()
            step += 1
    assert loop.found() == ([5] * 4, [1, 2, 3, 4])


@pytest.mark.parametrize("data", ["loader", "list"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_end_of_an_epoch_that_was_left_in_the_middle(two, watch, read, data, error):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    batches = torch.randn(20, 4)
    batches = torch.utils.data.DataLoader(batches, 4) if data == "loader" else batches.split(4)
    with contextlib.suppress(error), watch(two, optimizer) as run:
        for epoch in range(3):
            for index, x in enumerate(batches):
                optimizer.zero_grad()
                sum(two(x).values()).backward()
                optimizer.step()
                if (epoch, index) == (2, 2):
                    raise error
    assert len(read(run, "on_batch_losses")) == 13
    assert [each["epoch"] for each in read(run, "on_epoch_end")] == ([1, 2] if data == "loader" else [1, 2, 3])


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError, SystemExit(2)])
@pytest.mark.parametrize("before", ["step", "backward"])
def test_a_loop_that_is_left_amid_a_step_has_no_rest(two, watch, read, data, caplog, error, before):
    """What it computed counts nowhere: its epoch has no end. A rest of accumulation is one where the loop ends."""
    caplog.set_level("INFO", "losslog")
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    with contextlib.suppress(KeyboardInterrupt, ValueError, SystemExit), watch(two, optimizer) as run:
        for index, x in enumerate(data[0]):
            loss = sum(two(x).values())
            if index == 3 and error is not None and before == "backward":
                raise error
            loss.backward()
            if index == 3 and error is not None:
                raise error
            if index < 3:
                optimizer.step()
                optimizer.zero_grad()
    assert len(read(run, "on_batch_losses")) == 3
    assert [each["epoch"] for each in read(run, "on_epoch_end")] == ([1] if error is None else [])
    assert sum("followed by no step" in each for each in caplog.messages) == (error is None)


CYCLES = {
    "a cycle": lambda loader: itertools.cycle(loader),
    "on its way": lambda loader: (x.clone() for x in itertools.cycle(loader)),  # as if moved to a device
    "of a loader that nobody keeps": lambda loader: itertools.cycle(torch.utils.data.DataLoader(loader.dataset, 4)),
    "beside a longer one": lambda loader: (
        x for _, x in zip(itertools.cycle(torch.randn(7, 4)), itertools.cycle(loader), strict=False)
    ),
}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("kind", CYCLES)
@pytest.mark.parametrize("planned", [None, 4, 8])
@pytest.mark.parametrize("validates", [None, 3])
@pytest.mark.parametrize("uses", [1, 2])
def test_an_endless_cycle_over_a_loader(loop, kind, planned, validates, uses):
    """Rounds are epochs, however often the loop validates or uses a batch; where there is a plan it decides."""
    loop.start(steps_per_epoch=planned and planned * uses)
    for count, batch in enumerate(itertools.islice(CYCLES[kind](loop.train), 12), start=1):
        for _ in range(uses):
            loop.step(batch)
        if validates and count % validates == 0:
            loop.model.eval()
            with torch.no_grad():
                [loop.model(x) for x in loop.val]
            loop.model.train()
    length = planned or 5
    lengths = [uses * min(length, 12 - begin) for begin in range(0, 12, length)]
    assert loop.found() == (lengths, [*range(1, len(lengths) + 1)])


def test_two_cycles_at_once(loop):
    """The one whose batch comes first has the epochs."""
    loop.start()
    other = torch.utils.data.DataLoader(torch.randn(16, 4), 4)
    for one, two in itertools.islice(zip(itertools.cycle(loop.train), itertools.cycle(other), strict=True), 12):
        loop.step(torch.cat([one, two]))
    assert loop.found() == ([5, 5, 2], [1, 2, 3])


def test_cycles_over_accumulation(loop):
    """No epoch ends in an open window."""
    loop.start()
    batches = itertools.cycle(loop.train)
    for _ in range(6):
        loop.optimizer.zero_grad()
        for _ in range(2):
            sum(loop.model(next(batches)).values()).backward()
        loop.optimizer.step()
    assert loop.found() == ([2, 3, 1], [1, 2, 3])


@pytest.mark.parametrize("way", ["next", "while"])
def test_an_iterator_that_is_made_anew(loop, way, caplog):
    caplog.set_level("INFO", "losslog")
    loop.start(steps_per_epoch=8)
    if way == "next":
        iterator = iter(loop.train)
        for _ in range(13):
            batch = next(iterator, None)
            if batch is None:
                iterator = iter(loop.train)
                batch = next(iterator)
            loop.step(batch)
    else:
        count = 0
        while count < 13:
            for batch in loop.train:
                loop.step(batch)
                count += 1
                if count == 13:
                    break
    assert loop.found() == ([5, 5, 3], [1, 2, 3])
    assert "steps_per_epoch=8: the data loader gives 5 steps, and an epoch is a pass over it" in caplog.text


def test_a_step_on_other_data_after_each_pass_is_of_its_epoch(loop):
    loop.start()
    for _ in range(3):
        for batch in loop.train:
            loop.step(batch)
        loop.step(torch.randn(4, 4))
    assert loop.found() == ([6, 6, 6], [1, 2, 3])


def test_several_steps_on_one_batch_are_no_round(watch, read, caplog):
    """Actors and critics: at every second batch the actor steps twice on what the critic was trained on."""
    caplog.set_level("INFO", "losslog")
    torch.manual_seed(0)
    critic, actor = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    optimizers = [torch.optim.SGD(each.parameters(), 0.01) for each in (critic, actor)]
    run = watch(torch.nn.ModuleList([critic, actor]), optimizers)
    for batch in range(12):
        x = torch.randn(8, 4)
        for model, optimizer in zip((critic, actor, actor), (*optimizers, optimizers[1]), strict=True):
            if model is critic or batch % 2 == 0:
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
    run.close()
    assert {each["epoch"] for each in read(run, "on_batch_losses")} == {1}
    assert any("all 24 steps are one epoch" in each.getMessage() for each in caplog.records)
