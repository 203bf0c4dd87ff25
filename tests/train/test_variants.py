"""An optimiser from outside of zhbert: this is the example of CONTRIBUTING."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tests.small_corpora import TINY

from zhbert.config import OPTIMIZERS
from zhbert.pretraining.run import pretrain


class Lion:
    """Lion, Algorithm 2 of https://arxiv.org/abs/2302.06675: every weight moves equally far."""

    def __init__(self, parameters, *, beta1, beta2, weight_decay):
        self.parameters = dict(parameters)
        self.means = {name: torch.zeros_like(p).detach() for name, p in self.parameters.items()}
        self.beta1, self.beta2, self.weight_decay = beta1, beta2, weight_decay

    @torch.no_grad()
    def step(self, learning_rate, gradient_divisor=None):
        for name, parameter in self.parameters.items():
            if (gradient := parameter.grad) is None:
                continue
            if gradient_divisor is not None:
                gradient = gradient / gradient_divisor
            update = self.means[name].lerp(gradient, 1 - self.beta1).sign()
            if parameter.ndim >= 2:
                update += self.weight_decay * parameter
            parameter -= learning_rate * update
            self.means[name].lerp_(gradient, 1 - self.beta2)

    def state_dict(self):
        return self.means

    def load_state_dict(self, state):
        for name, mean in self.means.items():
            mean.copy_(state[name])


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "lion", Lion)
    file = tmp_path / "mine.toml"
    file.write_text('steps = 8\ncheckpoint_every = 4\n[optimizer]\nname = "lion"\n', "utf-8")
    return file


def losses(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_an_optimiser_from_outside_trains_and_resumes_to_the_same_bits(corpus, tmp_path, recipe):
    small = [one for one in TINY if not one.startswith("optimizer.name")]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    pretrain(recipe, corpus, whole, small)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-000008")
    pretrain(recipe, corpus, resumed, resume=True)
    assert losses(whole)[-1] < losses(whole)[0]
    assert losses(resumed) == losses(whole)
    weights = [run / "final" / "model.safetensors" for run in (whole, resumed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
