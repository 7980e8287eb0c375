from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from losslog_plateau import PlateauPlugin

STEPS, PER_EPOCH = 3000, 50


def start(plugin: PlateauPlugin, epochs: int | None = 60, steps_per_epoch: int | None = PER_EPOCH) -> PlateauPlugin:
    plugin.on_run_start(epochs=epochs, steps_per_epoch=steps_per_epoch, resumed=False, seq=0)
    return plugin


def batches(plugin: PlateauPlugin, rows: Any, run: Any, lr: Any = None) -> None:
    for step, losses in rows:
        epoch = step // PER_EPOCH + 1
        plugin.on_batch_losses(step, epoch, losses, sum(losses.values()), lr, None, run)


@pytest.fixture
def stall(rows: Any, make: Any) -> list[tuple[int, dict[str, float]]]:
    return list(rows(steps=STEPS, per_epoch=PER_EPOCH)(make.stalled()))


def test_it_leaves_the_training_process_alone() -> None:
    assert not getattr(PlateauPlugin, "near", False)  # its alerts and requests come back from the follower


def test_stall_becomes_one_alert_with_a_key_of_component_state_and_onset(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall, run)
    (alert,) = run.alerts
    (verdict,) = [each for each in plugin.verdicts() if each.component == "loss_mask"]
    assert alert["key"] == f"plateau/loss_mask/stalled/{verdict.since}"
    assert alert["title"] == "loss_mask has stalled"
    assert alert["level"] == "warning"
    assert alert["component"] == "loss_mask"


def test_replay_gives_the_same_alerts(stall: Any, make: Any) -> None:
    runs = [make.run(), make.run()]
    for each in runs:
        batches(start(PlateauPlugin()), stall, each)
    assert runs[0].alerts == runs[1].alerts != []


def test_non_finite_shares_its_key_with_the_core(run: Any) -> None:
    plugin = start(PlateauPlugin())
    plugin.on_batch_losses(0, 1, {"loss_mask": math.nan, "loss_box_reg": 1.0}, math.nan, None, None, run)
    assert [(a["key"], a["level"], a["step"]) for a in run.alerts] == [("non_finite/loss_mask", "error", 0)]


@pytest.mark.parametrize(("weights", "told"), [({"loss_b": 2.0}, 0), (None, 1), ({"loss_b": 3.0}, 1)])
def test_a_total_of_weighed_components_is_their_sum(run: Any, weights: Any, told: int) -> None:
    plugin = start(PlateauPlugin())
    for step in range(200):
        a, b = 1.0 + 0.1 * math.sin(step), 1.0 + 0.2 * math.cos(3 * step)
        plugin.on_batch_losses(step, step // PER_EPOCH + 1, {"loss_a": a, "loss_b": b}, a + 2 * b, None, weights, run)
    assert len([each for each in run.alerts if "not the sum" in each["title"]]) == told


def test_plan_is_epochs_times_steps(run: Any) -> None:
    assert start(PlateauPlugin()).watcher.clock.planned_steps == 3000


def test_options_beat_what_the_run_says() -> None:
    clock = start(PlateauPlugin(planned_steps=5000, steps_per_epoch=100)).watcher.clock
    assert (clock.planned_steps, clock.steps_per_epoch) == (5000, 100)


def test_epoch_length_is_learnt_from_the_first_whole_epoch(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(), steps_per_epoch=None)
    batches(plugin, stall[: PER_EPOCH + 1], run)
    clock = plugin.watcher.clock
    assert (clock.planned_steps, clock.steps_per_epoch) == (3000, PER_EPOCH)


def test_epoch_that_began_unseen_is_not_learnt_from(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(), steps_per_epoch=None)
    batches(plugin, stall[20 : 2 * PER_EPOCH], run)
    assert plugin.watcher.clock.steps_per_epoch is None
    batches(plugin, stall[2 * PER_EPOCH : 2 * PER_EPOCH + 1], run)
    assert plugin.watcher.clock.steps_per_epoch == PER_EPOCH


def test_stall_is_found_without_being_told_the_epoch_length(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin(), steps_per_epoch=None), stall, run)
    assert run.states("loss_mask") == ["stalled"]


def test_epoch_means_are_watched_where_there_are_no_batches(make: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(), epochs=40, steps_per_epoch=None)
    for epoch in range(1, 41):
        losses = {"loss_mask": make.stalled(12.0)(epoch), "loss_classifier": make.healthy(epoch)}
        plugin.on_epoch_end(epoch, 40, epoch * 50 - 1, losses, None, None, None, run)
    assert run.states("loss_mask") == ["stalled"]
    assert 12 < run.alerts[0]["epoch"] < 24


def test_epoch_means_are_left_alone_where_there_are_batches(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall[:100], run)
    plugin.on_epoch_end(2, 60, 99, {"loss_mask": math.nan}, None, None, None, run)
    assert run.alerts == []


def test_batches_after_epoch_means_start_anew(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    plugin.on_epoch_end(1, 60, 49, {"loss_mask": 1.0}, None, None, None, run)
    batches(plugin, stall[50:100], run)
    assert plugin.watcher.clock.steps_per_epoch == PER_EPOCH
    assert plugin.watcher.updates == 50


def test_scalar_losses_are_watched(run: Any) -> None:
    plugin = start(PlateauPlugin())
    plugin.on_batch_losses(0, 1, 1.5, 1.5, None, None, run)
    plugin.on_batch_losses(1, 1, math.inf, math.inf, None, None, run)
    assert [alert["key"] for alert in run.alerts] == ["non_finite/loss"]


def test_tensors_are_taken(run: Any) -> None:
    torch = pytest.importorskip("torch")
    plugin = start(PlateauPlugin())
    plugin.on_batch_losses(0, 1, {"loss_mask": torch.tensor(1.5)}, torch.tensor(1.5), 0.1, None, run)
    assert plugin.watcher.updates == 1


@pytest.mark.parametrize(
    ("options", "alerted"),
    [({"watch": ["loss_box_reg"]}, False), ({"ignore": ["loss_mask"]}, False), ({"watch": ["loss_mask"]}, True)],
)
def test_watch_and_ignore_choose_what_is_reported(options: Any, alerted: bool, stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin(**options)), stall, run)
    assert bool(run.alerts) is alerted


def test_ignored_component_asks_for_nothing(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin(on_stall="stop", ignore=["loss_mask"])), stall, run)
    assert run.stops == []


def test_typical_is_honoured(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin(typical={"loss_mask": [0.3, 0.6]})), stall, run)
    assert run.states("loss_mask") == []


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ({"z": 2.2}, "z", 2.2),
        ({"sensitivity": "low"}, "z", 2.5),
        ({"r": 0.03}, "r", 0.03),
        ({"window": 4.0}, "window", 4.0),
        ({"confirm": 3}, "confirm", 3),
        ({"quiet": True}, "quiet", True),
        ({"oscillating": True}, "oscillating", True),
    ],
)
def test_settings_reach_the_watcher(options: Any, setting: str, value: Any, stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(**options))
    batches(plugin, stall[:2], run)
    assert getattr(plugin.watcher.settings, setting) == value


def test_stop_is_asked_for_with_its_reason(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin(on_stall="stop")), stall, run)
    assert len(run.stops) == 1
    assert run.stops[0].startswith("loss_mask has stalled since step")


def test_nothing_is_asked_for_by_default(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin()), stall, run)
    assert (run.stops, run.rates) == ([], [])


def test_higher_head_rate_is_asked_for_once(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin(on_stall="raise_head_lr", lr_factor=3)), stall, run)
    assert run.rates == [(3.0, "mask_head")]
    assert "Asked for 3 times the learning rate of the parameter group mask_head" in run.alerts[0]["text"]


def test_second_stall_of_a_component_does_not_raise_again(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(on_stall="raise_head_lr"))
    for step, losses in stall:
        lr = 0.01 if step < 1700 else 0.1
        plugin.on_batch_losses(step, step // PER_EPOCH + 1, losses, sum(losses.values()), lr, None, run)
    assert run.states("loss_mask") == ["stalled", "stalled"]
    assert len(run.rates) == 1


def test_after_a_cut_the_head_rate_is_left_alone(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(on_stall="raise_head_lr"))
    for step, losses in stall:
        plugin.on_batch_losses(step, 1 + step // PER_EPOCH, losses, None, 0.01 if step < 700 else 0.001, None, run)
    assert run.states("loss_mask") == ["stalled"]
    assert run.rates == []
    assert "left alone" in run.alerts[0]["text"]


def test_unknown_head_is_said_and_not_guessed(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(on_stall="raise_head_lr", typical={"depth": [0.01, 0.05]}))
    batches(plugin, [(s, {"depth" if n == "loss_mask" else n: x for n, x in v.items()}) for s, v in stall], run)
    assert run.rates == []
    assert "head_group={'depth': ...}" in run.alerts[0]["text"]


def test_head_group_is_honoured(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin(on_stall="raise_head_lr", head_group={"loss_mask": "my_mask"})), stall, run)
    assert run.rates == [(10.0, "my_mask")]


class Journal:
    """Writes records as the core does, for a plugin that reads them up."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self.seq = 0

    def write(self, hook: str, **data: Any) -> int:
        record = {"seq": self.seq, "time": 0.0, "hook": hook, "data": data}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.seq += 1
        return self.seq - 1

    def batches(self, rows: Any) -> None:
        for step, losses in rows:
            epoch = step // PER_EPOCH + 1
            self.write("on_batch_losses", step=step, epoch=epoch, losses=losses, total=sum(losses.values()), lr=None)


def test_resume_in_another_process_gives_the_alerts_of_an_unbroken_run(
    tmp_path: Path, stall: Any, run: Any, make: Any
) -> None:
    journal, resumed = Journal(tmp_path), make.run(dir=tmp_path)
    journal.write("on_run_start", epochs=60, steps_per_epoch=PER_EPOCH, resumed=False)
    journal.batches(stall[:1000])
    seq = journal.write("on_run_start", epochs=60, steps_per_epoch=PER_EPOCH, resumed=True)
    plugin = PlateauPlugin()
    plugin.on_run_start(epochs=60, steps_per_epoch=PER_EPOCH, resumed=True, seq=seq)
    batches(plugin, stall[1000:], resumed)
    batches(start(PlateauPlugin()), stall, run)
    assert resumed.alerts == run.alerts != []


def test_resume_from_a_checkpoint_forgets_what_came_after_it(tmp_path: Path, stall: Any, run: Any, make: Any) -> None:
    journal, resumed = Journal(tmp_path), make.run(dir=tmp_path)
    journal.write("on_run_start", epochs=60, steps_per_epoch=PER_EPOCH, resumed=False)
    journal.batches([*stall[:900], *((s, {n: 9.0 for n in v}) for s, v in stall[900:1000])])
    first = journal.write("on_run_start", epochs=60, steps_per_epoch=PER_EPOCH, resumed=True)
    second = journal.write("on_resume", epoch=18, step=899)
    plugin = PlateauPlugin()
    plugin.on_run_start(epochs=60, steps_per_epoch=PER_EPOCH, resumed=True, seq=first)
    plugin.on_resume(epoch=18, step=899, run=resumed, seq=second)
    batches(plugin, stall[900:], resumed)
    batches(start(PlateauPlugin()), stall, run)
    assert resumed.alerts == run.alerts != []


def test_what_was_alerted_before_a_resume_is_not_alerted_again(tmp_path: Path, stall: Any, run: Any, make: Any) -> None:
    batches(start(PlateauPlugin()), stall, run)
    journal, resumed = Journal(tmp_path), make.run(dir=tmp_path)
    journal.write("on_run_start", epochs=60, steps_per_epoch=PER_EPOCH, resumed=False)
    journal.batches(stall[: run.alerts[0]["step"] + 10])
    seq = journal.write("on_run_start", epochs=60, steps_per_epoch=PER_EPOCH, resumed=True)
    plugin = PlateauPlugin(on_stall="raise_head_lr")
    plugin.on_run_start(epochs=60, steps_per_epoch=PER_EPOCH, resumed=True, seq=seq)
    batches(plugin, stall[run.alerts[0]["step"] + 10 :], resumed)
    assert (resumed.alerts, resumed.rates) == ([], [])


def test_resume_without_a_journal_starts_the_lines_anew(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall[:900], run)
    plugin.on_resume(epoch=10, step=499, run=run, seq=950)
    assert plugin.watcher.step == 499
    assert plugin.watcher.components["loss_mask"].ring.means == []


def test_torn_lines_of_a_journal_are_skipped(tmp_path: Path, stall: Any, make: Any) -> None:
    journal, resumed = Journal(tmp_path), make.run(dir=tmp_path)
    journal.batches(stall[:10])
    with journal.path.open("a") as file:
        file.write('{"seq": 10, "ho\n')
    plugin = PlateauPlugin()
    plugin.on_run_start(epochs=60, steps_per_epoch=PER_EPOCH, resumed=True, seq=50)
    batches(plugin, stall[10:11], resumed)
    assert plugin.watcher.updates == 11


@pytest.mark.parametrize("epochs", [None, 12])
def test_first_epoch_of_unknown_length_is_silent(epochs: int | None, rows: Any, make: Any, run: Any) -> None:
    """An epoch may be a hundred steps long or a hundred thousand: a stand in the first one says nothing."""
    plugin = start(PlateauPlugin(on_stall="stop"), epochs=epochs, steps_per_epoch=None)
    for step, losses in rows(steps=8000, per_epoch=250)(make.stalled(2.0)):
        plugin.on_batch_losses(step, 1, losses, None, None, None, run)
    assert (run.alerts, run.stops) == ([], [])
    assert {verdict.state for verdict in plugin.verdicts()} & {"stalled", "flat", "diverging"} == set()


def test_non_finite_is_told_in_the_first_epoch_too(run: Any) -> None:
    plugin = start(PlateauPlugin(), steps_per_epoch=None)
    plugin.on_batch_losses(0, 1, {"loss_mask": math.nan}, math.nan, None, None, run)
    assert [alert["key"] for alert in run.alerts] == ["non_finite/loss_mask"]


def test_plan_and_epochs_together_give_the_length_of_an_epoch(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(planned_steps=3000), steps_per_epoch=None)
    batches(plugin, stall[:2], run)
    assert plugin.watcher.clock.steps_per_epoch == PER_EPOCH


@pytest.mark.parametrize(
    ("options", "config", "cuts"),
    [
        ({"planned_cuts": [2000, 2750]}, {}, (2000, 2750)),
        ({}, {"lr_steps": [40, 55]}, (2000, 2750)),
        ({}, {"scheduler": {"milestones": [40, 55]}}, (2000, 2750)),
        ({}, {"milestones": [2000, 2750]}, (2000, 2750)),
        ({"planned_cuts": []}, {"milestones": [40]}, ()),
        ({}, {"milestones": "soon", "steps": [1, 2]}, ()),
    ],
)
def test_planned_cuts_come_from_the_option_or_the_config(
    options: Any, config: Any, cuts: tuple[int, ...], stall: Any, make: Any
) -> None:
    run = make.run()
    run.config = config
    plugin = start(PlateauPlugin(**options))
    batches(plugin, stall[:2], run)
    assert plugin.watcher.scene.planned_cuts == cuts


def test_planned_cuts_in_epochs_wait_for_the_length_of_an_epoch(stall: Any, make: Any) -> None:
    run = make.run()
    run.config = {"milestones": [40]}
    plugin = start(PlateauPlugin(), steps_per_epoch=None)
    batches(plugin, stall[:PER_EPOCH], run)
    assert plugin.watcher.scene.planned_cuts == ()
    batches(plugin, stall[PER_EPOCH : PER_EPOCH + 1], run)
    assert plugin.watcher.scene.planned_cuts == (2000,)


def test_stall_before_a_planned_cut_is_information_and_asks_for_nothing(stall: Any, make: Any) -> None:
    run = make.run()
    run.config = {"milestones": [50]}
    batches(start(PlateauPlugin(on_stall="stop")), stall[:2400], run)
    (alert,) = [each for each in run.alerts if each["component"] == "loss_mask"]
    assert (alert["level"], alert["cause"], alert["evidence"]["planned_cut"]) == ("info", "lr_cut_planned", 2500)
    assert run.stops == []


def test_alert_carries_its_evidence(stall: Any, run: Any) -> None:
    batches(start(PlateauPlugin()), stall, run, lr=0.01)
    (alert,) = run.alerts
    assert alert["cause"] is None
    assert alert["evidence"]["range"] == [0.08, 0.20]
    assert "loss_classifier" in alert["evidence"]["improving"]


def test_reach_of_zero_is_the_cause_of_the_stall(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall[:760], run, lr=0.01)
    plugin.on_metrics(760, None, {"reach/loss_mask": 0, "reach/loss_box_reg": 20, "throughput": 0.0}, None, run)
    batches(plugin, stall[760:], run, lr=0.01)
    (alert,) = run.alerts
    assert (alert["cause"], alert["evidence"]["untrained_since"]) == ("not_trained", 760)


def test_end_of_a_run_says_what_became_of_every_component(
    stall: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = start(PlateauPlugin(ignore=["loss_rpn_box_reg"]))
    batches(plugin, stall, run)
    with caplog.at_level("INFO", logger="losslog"):
        plugin.on_run_end()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "loss_mask stalled since epoch" in line
    assert "loss_classifier" in line
    assert "loss_rpn_box_reg" not in line
    assert "warming up" not in line


def test_resumed_run_is_not_over(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall[:100], run)
    plugin.on_run_end()
    assert plugin.watcher.scene.over
    plugin.on_run_start(epochs=60, steps_per_epoch=PER_EPOCH, resumed=True, seq=500)
    assert not plugin.watcher.scene.over


SAID = "loss_mask trains nothing since step 760: mask_head: requires_grad is False; backbone: detached"


def test_alert_that_it_trains_nothing_is_quoted_by_the_later_stall(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall[:761], run, lr=0.01)
    plugin.on_alert(component="loss_mask", step=760, cause="not_trained", text=SAID, evidence=None, run=run)
    batches(plugin, stall[761:], run, lr=0.01)
    (alert,) = run.alerts
    assert (alert["cause"], alert["evidence"]["untrained_since"]) == ("not_trained", 760)
    assert SAID in alert["text"]
    assert "No cause was measured" not in alert["text"]


@pytest.mark.parametrize(
    ("cause", "component", "stops"), [("not_trained", "loss_mask", 1), ("lr_zero", "loss_mask", 0), (None, None, 0)]
)
def test_stop_on_a_cause_is_asked_for_at_once(cause: Any, component: Any, stops: int, run: Any) -> None:
    plugin = start(PlateauPlugin(on_cause={"not_trained": "stop"}))
    plugin.on_alert(component=component, step=3, cause=cause, text=SAID, evidence=None, run=run)
    assert len(run.stops) == stops


@pytest.mark.parametrize("on_cause", ["stop", {"not_trained": "panic"}, {"bad_luck": "stop"}])
def test_reaction_to_an_unknown_cause_is_refused(on_cause: Any) -> None:
    with pytest.raises(ValueError, match=r"on_cause=.*: give a table"):
        PlateauPlugin(on_cause=on_cause)


def test_a_stall_names_the_images_where_the_loss_is_highest(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall[:PER_EPOCH], run)
    known = {"loss_mask": [[0.9, 12, [12, 87]], [0.8, 3, [903, 12]]], "loss_classifier": [[0.9, 1, [5]]]}
    plugin.on_epoch_end(1, 60, PER_EPOCH - 1, {}, None, None, known, run)
    batches(plugin, stall[PER_EPOCH:], run)
    (alert,) = [each for each in run.alerts if each["component"] == "loss_mask"]
    assert "It is highest on images 12, 87, 903 (losslog show --hard)." in alert["text"]


@pytest.mark.parametrize(("options", "told"), [
    ({}, 1), ({"ignore": ["loss_mask"]}, 0), ({"ignore": ["loss_box_reg"]}, 1), ({"watch": ["loss_mask"]}, 1),
    ({"watch": ["loss_box_reg"]}, 0), ({"ignore": ["loss_mask", "loss_dice"]}, 0),
])  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"loss_dice": {"mask_head": 4}}])
def test_a_part_that_only_ignored_losses_train_is_ignored(options: Any, told: int, more: Any, run: Any) -> None:
    plugin = start(PlateauPlugin(**options))
    reach = {"loss_mask": {"mask_head": 4}, "loss_box_reg": {"box_head": 4}} | more
    plugin.on_batch_losses(7, 2, {"loss_mask": 1.0, "loss_box_reg": 1.0}, 2.0, None, None, run)
    for _ in range(4):
        norms = {"grad_norm/mask_head": math.nan, "grad_norm/box_head": 1.0}
        plugin.on_metrics(7, None, norms, {"reach": reach}, run)
    expected = 1 if more and options == {"ignore": ["loss_mask"]} else told  # loss_dice trains it too
    assert [(each["epoch"], each["step"]) for each in run.alerts] == [(2, 7)] * expected


@pytest.mark.parametrize("steps", [3, 40, 300])
def test_every_component_has_its_end_however_little_is_known_of_it(
    steps: int, rows: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = start(PlateauPlugin(), epochs=6)
    batches(plugin, list(rows(steps=steps, noise=1.5)(lambda epoch: 0.4)), run)
    with caplog.at_level("INFO", logger="losslog"):
        plugin.on_run_end()
    (line,) = [record.getMessage() for record in caplog.records]
    assert all(each.component in line for each in plugin.verdicts(over=True))
    assert line.count("too few values to say") <= (5 if steps > PER_EPOCH else 1)


def test_since_when_it_trains_nothing_is_what_the_alert_measured(stall: Any, run: Any) -> None:
    plugin = start(PlateauPlugin())
    batches(plugin, stall[:790], run, lr=0.01)
    plugin.on_alert(component="loss_mask", step=789, cause="not_trained", text=SAID, evidence={"step": 760}, run=run)
    batches(plugin, stall[790:], run, lr=0.01)
    (alert,) = run.alerts
    plugin.on_alert(component="loss_mask", step=alert["step"], cause=alert["cause"], text=alert["text"],
                    evidence=alert["evidence"], run=run)  # fmt: skip
    assert plugin.watcher.scene.untrained["loss_mask"] == (760, SAID)


def test_of_very_many_components_the_first_are_watched_and_it_is_said_once(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = start(PlateauPlugin())
    for step in range(3):
        losses = {f"l{number}": 1.0 for number in range(step, 1000)}
        plugin.on_batch_losses(step=step, epoch=1, losses=losses, total=len(losses), lr=0.1, weights=None, run=run)
    assert list(plugin.watcher.components) == [f"l{number}" for number in range(400)]
    assert [each.component for each in plugin.verdicts()] == list(plugin.watcher.components)
    assert [record.getMessage() for record in caplog.records] == [
        "plateau: the first 400 components are watched; l400 and what came later are not"
    ]
    assert not [each for each in run.alerts if "sum" in each["title"]]  # the others are in it
