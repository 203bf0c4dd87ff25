"""A BERT in TensorFlow, written from the published description alone: the oracle of conversion.

It reads a checkpoint's variables by the names that Google's code gives them and multiplies as that
code does (``x @ kernel``; ``output_weights`` transposed), so that a matrix in the wrong position
shows in the numbers. Nothing of zhbert is used here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Outputs:
    """(batch, length, ...) arrays; heads that the checkpoint lacks are None."""

    hidden_states: list[np.ndarray] = field(default_factory=list)
    pooled: np.ndarray | None = None
    words: np.ndarray | None = None
    pair: np.ndarray | None = None


class TensorFlowBert:
    """A checkpoint folder as Google publishes them."""

    def __init__(self, folder: Path) -> None:
        import tensorflow

        self.tf = tensorflow
        self.config = json.loads((folder / "bert_config.json").read_text(encoding="utf-8"))
        self.reader = tensorflow.train.load_checkpoint(str(folder / "bert_model.ckpt"))

    def has(self, name: str) -> bool:
        return bool(self.reader.has_tensor(name))

    def variable(self, name: str) -> Any:
        return self.tf.cast(self.reader.get_tensor(name), self.tf.float32)

    def dense(self, x: Any, name: str) -> Any:
        return self.tf.matmul(x, self.variable(f"{name}/kernel")) + self.variable(f"{name}/bias")

    def norm(self, x: Any, name: str) -> Any:
        mean, variance = self.tf.nn.moments(x, axes=[-1], keepdims=True)
        x = (x - mean) / self.tf.sqrt(variance + 1e-12)
        return x * self.variable(f"{name}/gamma") + self.variable(f"{name}/beta")

    def activate(self, x: Any) -> Any:
        return {
            "gelu": lambda: 0.5 * x * (1.0 + self.tf.math.erf(x / np.float32(np.sqrt(2.0)))),
            "relu": lambda: self.tf.nn.relu(x),
        }[self.config["hidden_act"]]()

    def attention(self, x: Any, mask: Any, scope: str) -> Any:
        heads = self.config["num_attention_heads"]
        size = self.config["hidden_size"] // heads

        def split(name: str) -> Any:  # (batch, heads, length, size)
            projected = self.dense(x, f"{scope}/self/{name}")
            batch, length = x.shape[:2]
            shaped = self.tf.reshape(projected, [batch, length, heads, size])
            return self.tf.transpose(shaped, [0, 2, 1, 3])

        query, key, value = split("query"), split("key"), split("value")
        scores = self.tf.matmul(query, key, transpose_b=True) / np.float32(np.sqrt(size))
        scores += (1.0 - self.tf.cast(mask, scores.dtype))[:, None, None, :] * -10000.0
        context = self.tf.matmul(self.tf.nn.softmax(scores), value)
        context = self.tf.transpose(context, [0, 2, 1, 3])
        context = self.tf.reshape(context, x.shape)
        return self.norm(
            self.dense(context, f"{scope}/output/dense") + x, f"{scope}/output/LayerNorm"
        )

    def __call__(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray
    ) -> Outputs:
        tf = self.tf
        embeddings = "bert/embeddings"
        words = self.variable(f"{embeddings}/word_embeddings")
        x = tf.gather(words, input_ids)
        x += tf.gather(self.variable(f"{embeddings}/token_type_embeddings"), token_type_ids)
        x += self.variable(f"{embeddings}/position_embeddings")[None, : input_ids.shape[1]]
        x = self.norm(x, f"{embeddings}/LayerNorm")
        outputs = Outputs([x.numpy()])
        for number in range(self.config["num_hidden_layers"]):
            scope = f"bert/encoder/layer_{number}"
            attended = self.attention(x, attention_mask, f"{scope}/attention")
            inner = self.activate(self.dense(attended, f"{scope}/intermediate/dense"))
            x = self.norm(
                self.dense(inner, f"{scope}/output/dense") + attended, f"{scope}/output/LayerNorm"
            )
            outputs.hidden_states.append(x.numpy())
        if self.has("bert/pooler/dense/kernel"):
            pooled = tf.tanh(self.dense(x[:, 0], "bert/pooler/dense"))
            outputs.pooled = pooled.numpy()
            if self.has("cls/seq_relationship/output_weights"):
                weights = self.variable("cls/seq_relationship/output_weights")
                pair = tf.matmul(pooled, weights, transpose_b=True)
                outputs.pair = (pair + self.variable("cls/seq_relationship/output_bias")).numpy()
        if self.has("cls/predictions/output_bias"):
            transform = "cls/predictions/transform"
            y = self.activate(self.dense(x, f"{transform}/dense"))
            y = self.norm(y, f"{transform}/LayerNorm")
            logits = tf.matmul(y, words, transpose_b=True)
            outputs.words = (logits + self.variable("cls/predictions/output_bias")).numpy()
        return outputs
