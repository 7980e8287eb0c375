"""trl's own trainers, with a tiny model made here: totals, accumulation, rewards, evaluation."""

from __future__ import annotations

import json

import pytest

from tests.compat.frameworks.conftest import Told, Workshop, need

need("trl", "datasets")

SOURCE = """
import json, warnings; warnings.filterwarnings("ignore")
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from losslog.compat.transformers import LosslogCallback

words = "<unk> <pad> <bos> <eos> yes no why is it good bad a b c".split()
raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
raw.pre_tokenizer = pre_tokenizers.Whitespace()
tokens = PreTrainedTokenizerFast(
    tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    pad_token_id=1, bos_token_id=2, eos_token_id=3,
)
LlamaForCausalLM(config).save_pretrained("tiny")
tokens.save_pretrained("tiny")
rows = [
    {"prompt": "why is it", "chosen": "good a" if i % 2 else "yes", "rejected": "bad b c" if i % 3 else "no"}
    for i in range(10)
]
truth = {}

def train(kind, made, name, data, **more):
    class Trainer(kind):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            truth.setdefault(name, {"parts": []})["parts"].append(float(loss))
            return loss
    args = made(
        "out", per_device_train_batch_size=2, logging_steps=1, report_to=[], use_cpu=True, bf16=False,
        disable_tqdm=True, save_strategy="no", learning_rate=1e-2, **more,
    )
    sets = {"eval_dataset": data.select(range(4))} if "eval_strategy" in more else {}
    trainer = Trainer(
        model="tiny", args=args, train_dataset=data, processing_class=tokens,
        callbacks=[LosslogCallback(name=name, plugins=None)], **sets,
    )
    trainer.train()
    truth[name]["logs"] = trainer.state.log_history

pairs = Dataset.from_list(rows)
train(DPOTrainer, DPOConfig, "dpo", pairs, num_train_epochs=2, gradient_accumulation_steps=2, eval_strategy="epoch")
texts = Dataset.from_list([{"prompt": each["prompt"], "completion": " " + each["chosen"]} for each in rows])
train(SFTTrainer, SFTConfig, "sft", texts, num_train_epochs=1, gradient_accumulation_steps=3)
json.dump(truth, open("truth.json", "w"))
"""


def test_the_total_is_what_is_optimised_and_what_trl_logs_is_beside(workshop: Workshop) -> None:
    workshop.run(SOURCE)
    truth = json.loads((workshop.folder / "truth.json").read_text("utf-8"))
    for name, sizes in (("dpo", [2, 2, 1] * 2), ("sft", [3, 2])):
        told, parts = Told(workshop.folder, name), list(truth[name]["parts"])
        batches = told.data("on_batch_losses")
        assert [each.get("n", 1) for each in batches] == sizes
        for batch in batches:  # the trainer divides each loss by the batches of its window, or by their tokens
            n = batch.get("n", 1)
            window, parts = parts[:n], parts[n:]
            assert batch["total"] == pytest.approx(sum(window), rel=1e-5)
        assert parts == []
        assert told.data("on_run_end")[0]["status"] == "finished"
    dpo = Told(workshop.folder, "dpo")
    logs = [each for each in truth["dpo"]["logs"] if "rewards/chosen" in each]
    told = {each["step"]: each["metrics"] for each in dpo.data("on_metrics") if "rewards/chosen" in each["metrics"]}
    assert sorted(told) == list(range(6))
    for step, log in enumerate(logs):
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen"):
            assert told[step][name] == pytest.approx(log[name], rel=1e-5)
    evaluations = [each for each in truth["dpo"]["logs"] if "eval_loss" in each]
    assert [each["val_loss"] for each in dpo.data("on_epoch_end")] == pytest.approx(
        [each["eval_loss"] for each in evaluations]
    )
    assert [each["metrics"]["rewards/margins"] for each in dpo.data("on_eval")] == pytest.approx(
        [each["eval_rewards/margins"] for each in evaluations]
    )
