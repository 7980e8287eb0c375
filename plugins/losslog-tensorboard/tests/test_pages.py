"""What describes a run: the layout, the config, the hyperparameters, the alerts."""

from __future__ import annotations

import re

import pytest
from losslog_tensorboard.events import flatten
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata

CONFIG = {"optimizer": {"name": "sgd", "lr": 0.1}, "amp": True, "epochs": 20, "note": None, "sizes": [1, 2]}


def _layout(accumulate):
    (found,) = accumulate().Tensors("custom_scalars__config__")
    return Layout.FromString(found.tensor_proto.string_val[0])


def test_one_chart_shows_the_components_and_not_the_total(drive, accumulate):
    drive().start()
    chart = _layout(accumulate).category[0].chart[0]
    (pattern,) = chart.multiline.tag
    assert re.match(pattern, "loss/train_loss_mask")
    assert not re.match(pattern, "loss/train_total")


def test_the_chart_of_the_totals_has_no_components(drive, accumulate):
    drive().start()
    chart = _layout(accumulate).category[0].chart[1]
    assert not any(re.match(pattern, "loss/train_loss_mask") for pattern in chart.multiline.tag)


def test_the_layout_can_be_left_out(drive, accumulate):
    drive(layout=False, config_text=False).start(CONFIG)
    assert "custom_scalars__config__" not in accumulate().Tags()["tensors"]


def test_the_config_is_a_text(drive, texts):
    drive().start(CONFIG)
    ((step, text),) = texts("config")
    assert step == 0
    assert '"lr": 0.1' in text


def test_the_config_is_not_repeated_on_resume(drive, texts):
    run = drive()
    run.start(CONFIG)
    run.again()
    run.start(CONFIG, resumed=True)
    assert len(texts("config")) == 1


def _content(accumulate, tag):
    return accumulate().SummaryMetadata(tag).plugin_data.content


def test_hyperparameters_are_flat_and_typed(drive, accumulate):
    drive().start(CONFIG)
    start = metadata.parse_session_start_info_plugin_data(_content(accumulate, metadata.SESSION_START_INFO_TAG))
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert values == {"optimizer.name": "sgd", "optimizer.lr": 0.1, "amp": True, "epochs": 20.0, "sizes": "[1, 2]"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_hyperparameter_that_is_no_number_for_json_is_a_text(value):
    assert isinstance(flatten({"x": value})["x"], str)


def test_the_hparams_page_shows_the_map(drive, accumulate):
    drive().start(CONFIG)
    experiment = metadata.parse_experiment_plugin_data(_content(accumulate, metadata.EXPERIMENT_TAG))
    assert "mAP/bbox_AP" in [info.name.tag for info in experiment.metric_infos]


def test_a_finished_run_says_so(drive, accumulate):
    run = drive()
    run.start(CONFIG)
    run.end()
    end = metadata.parse_session_end_info_plugin_data(_content(accumulate, metadata.SESSION_END_INFO_TAG))
    assert end.status == 1  # STATUS_SUCCESS


def test_a_run_that_may_be_continued_has_no_end(drive, accumulate):
    run = drive()
    run.start(CONFIG)
    run.end("crashed")
    assert metadata.SESSION_END_INFO_TAG not in accumulate().Tags()["tensors"]


def test_an_alert_stands_at_its_step_in_the_sub_run(drive, texts):
    run = drive()
    run.alert("loss_mask stalls", "lower the rate", step=40)
    run.end()
    ((step, text),) = texts("alerts", "batch")
    assert step == 40
    assert "loss\\_mask stalls" in text


def test_an_alert_on_a_component_is_a_mark_in_a_series_of_its_own(drive, accumulate):
    run = drive()
    run.batch(39)
    for level, step in (("info", 40), ("error", 80)):
        run.plugin.on_alert(
            level, "loss_mask stalls", "", "plateau", "loss_mask", step, None, run.run, run.tick(None), -1
        )
    run.end()
    marks = accumulate("batch").Scalars("alert/loss_mask")
    assert [(each.step, each.value) for each in marks] == [(40, 1.0), (80, 3.0)]


def test_an_alert_without_a_step_stands_at_the_last_batch(drive, texts):
    run = drive()
    run.batch(12)
    run.alert("hello")
    run.end()
    assert texts("alerts", "batch")[0][0] == 12


def test_two_alerts_of_one_step_stand_side_by_side(drive, texts):
    run = drive()
    run.alert("one", step=5)
    run.alert("two", step=5)
    run.end()
    assert [step for step, _ in texts("alerts", "batch")] == [5, 6]


def test_markup_in_an_alert_is_shown_as_it_is(drive, texts):
    run = drive()
    run.alert("<script>", "[x](http://y)", step=1)
    run.end()
    assert "\\<script\\>" in texts("alerts", "batch")[0][1]
