"""Builds the protocol buffers: scalars, text, the custom-scalars layout, hyperparameters.

No thread, no I/O, no torch and no TensorFlow: TensorBoard's own message classes. Contract:

- One step of a run is one event, whatever the number of its values.
- Values are 32-bit floats in the format; NaN and the infinities stay what they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING

WRITER: Final = "losslog-tensorboard"
MAX_HPARAMS: Final = 200
MAX_HPARAM_TEXT: Final = 200
KEY_METRICS: Final = (
    "mAP/bbox_AP",
    "mAP/bbox_AP50",
    "mAP/segm_AP",
    "mAP/segm_AP50",
    "loss/val",
    "loss/train_total",
    "loss/train",
)
# Regular expressions that TensorBoard matches at the beginning of a tag, so each says where the tag ends.
LAYOUT: Final = {
    "losses": {
        "train loss components": [r"loss/train_(?!total$).*$"],
        "train and validation loss": [r"loss/train$", r"loss/train_total$", r"loss/val$"],
        "validation loss components": [r"loss/val_.*$"],
        "batch loss components": [r"batch/train_(?!total$).*$"],
        "batch loss": [r"batch/train$", r"batch/train_total$"],
    },
    "mAP": {
        "AP": [r"mAP[^/]*/.*_AP$"],
        "AP at one overlap": [r"mAP[^/]*/.*_AP(50|75)$"],
        "AP by size": [r"mAP[^/]*/.*_AP[sml]$"],
        "AP by class": [r"mAP_class[^/]*/.*$"],
    },
    "learning rate": {"lr": [r"lr$", r"lr_group/.*$"]},
}


def opening(time: float, run_id: str, part: int) -> Event:
    """The first event of a file: the format's version, whose file it is, and of which part of the run.

    Args:
        time: of the first event in it.
        run_id: the run.
        part: number of the record with which the run was resumed last; 0 where it was not.
    """
    event = Event(wall_time=time, file_version="brain.Event:2")
    event.source_metadata.writer = f"{WRITER} {run_id}" + (f" {part}" if part else "")
    return event


def part_of(event: Event, run_id: str) -> int | None:
    """Of which part of the run a file with that first event is; None where it is another's."""
    words = event.source_metadata.writer.split(" ")
    if words[:2] != [WRITER, run_id]:
        return None
    return int(words[2]) if words[2:] and words[2].isdecimal() else 0


def purge(time: float, step: int) -> Event:
    """Tells readers to forget every point of this folder at ``step`` and later."""
    return Event(wall_time=time, step=step, session_log=SessionLog(status=SessionLog.START))


class Scalars:
    """Events with all values of one step. A message is filled again and again as long as the tags are the same."""

    def __init__(self) -> None:
        self._tags: tuple[str, ...] = ()
        self._event, self._values = Event(), list[Summary.Value]()

    def encoded(self, time: float, step: int, tags: tuple[str, ...], values: Iterable[float]) -> bytes:
        """The event, serialised: a value of each of these tags."""
        if tags != self._tags:
            event, self._tags = Event(), ()
            self._event, self._values = event, [event.summary.value.add(tag=tag) for tag in tags]
            self._tags = tags
        self._event.wall_time, self._event.step = time, step
        for message, value in zip(self._values, values, strict=True):
            message.simple_value = value
        data: bytes = self._event.SerializeToString()
        return data


def image(time: float, step: int, tag: str, jpeg: bytes, size: tuple[int, int]) -> Event:
    """A picture that is encoded already; ``size`` is its width and height."""
    event = Event(wall_time=time, step=step)
    picture = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=jpeg)
    event.summary.value.add(tag=tag, image=picture)
    return event


def text(time: float, step: int, tag: str, markdown: str) -> Event:
    """A text; it reads back under ``<tag>/text_summary``."""
    return _tensor(time, step, f"{tag}/text_summary", "text", markdown.encode("utf-8", "replace"))


def layout(time: float) -> Event:
    """The custom-scalars page: the components in one chart, average precisions in one, learning rates in one."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

    categories = [
        Category(
            title=title,
            chart=[Chart(title=name, multiline=MultilineChartContent(tag=tags)) for name, tags in charts.items()],
        )
        for title, charts in LAYOUT.items()
    ]
    body = Layout(category=categories).SerializeToString()
    return _tensor(time, 0, "custom_scalars__config__", "custom_scalars", body)


def hparams(time: float, run_id: str, config: Mapping[str, Any]) -> Event:
    """The run's hyperparameters, and which series the HPARAMS page shows beside them."""
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(group_name=run_id, start_time_secs=time)
    infos = []
    for name, value in flatten(config).items():
        info = api_pb2.HParamInfo(name=name)
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
            info.type = api_pb2.DATA_TYPE_BOOL
        elif isinstance(value, str):
            start.hparams[name].string_value = value
            info.type = api_pb2.DATA_TYPE_STRING
        else:
            start.hparams[name].number_value = value
            info.type = api_pb2.DATA_TYPE_FLOAT64
        infos.append(info)
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag) for tag in KEY_METRICS]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    event = Event(wall_time=time)
    _hparams_value(event, "experiment", HParamsPluginData(experiment=experiment))
    _hparams_value(event, "session_start_info", HParamsPluginData(session_start_info=start))
    return event


def hparams_end(time: float) -> Event:
    """The run has finished."""
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    info = SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time)
    event = Event(wall_time=time)
    _hparams_value(event, "session_end_info", HParamsPluginData(session_end_info=info))
    return event


def config_markdown(name: str, run_id: str, config: Mapping[str, Any]) -> str:
    """The config as a text for people."""
    body = json.dumps(config, indent=2, ensure_ascii=False, default=str)
    return f"**{_literal(name)}** (run `{run_id}`)\n\n" + "\n".join(f"    {line}" for line in body.splitlines())


def alert_markdown(level: str, title: str, body: str, source: str, component: str | None, where: str) -> str:
    """An alert as a text for people; the words of users and plugins are shown, not interpreted."""
    about = ", ".join(part for part in (f"component {component}" if component else "", where, f"by {source}") if part)
    head = f"**{level.upper()}: {_literal(title)}** ({_literal(about)})"
    return head + "".join(f"\n\n{_literal(line)}" for line in body.splitlines() if line.strip())


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """Nested config as ``optimizer.lr: 0.1``; lists as text; None left out; at most 200 entries.

    Numbers that are not finite become text: the HPARAMS page fails on them.
    """
    flat: dict[str, bool | float | str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, bool | int | float) and abs(value) <= sys.float_info.max:
            flat[name] = value
        elif value is not None:
            words = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[name] = words[:MAX_HPARAM_TEXT]
    return dict(list(flat.items())[:MAX_HPARAMS])


def _literal(words: str) -> str:
    return "".join(f"\\{char}" if char in "\\`*_{}[]()#+!|<>~$" else char for char in words)


def _tensor(time: float, step: int, tag: str, plugin: str, body: bytes) -> Event:
    event = Event(wall_time=time, step=step)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]) if plugin == "text" else TensorShapeProto()
    tensor = TensorProto(dtype=DT_STRING, string_val=[body], tensor_shape=shape)
    event.summary.CopyFrom(Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]))
    return event


def _hparams_value(event: Event, name: str, data: Any) -> None:
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
    nothing = TensorProto(dtype=DT_FLOAT, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)]))
    event.summary.value.add(tag=f"_hparams_/{name}", metadata=SummaryMetadata(plugin_data=plugin), tensor=nothing)
