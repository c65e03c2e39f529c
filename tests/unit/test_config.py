"""Configuration: every combination that cannot work is refused with what to do instead."""

import dataclasses
import json

import pytest

import spikingmoe
from spikingmoe.config import (
    PRESETS,
    ModelConfig,
    TrainConfig,
    dense_twin,
    get_preset,
    model_config,
    override,
    relu_twin,
    train_config,
    unknown,
)
from spikingmoe.model import SpikingTransformer, create_model

NAN = float("nan")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *[
            ({name: 0}, f"{name}=0 must be at least 1")
            for name in (
                "num_classes",
                "input_channels",
                "image_size",
                "time_steps",
                "embed_dim",
                "depth",
                "num_heads",
                "expert_width",
                "num_experts",
                "top_k",
                "prompt_width",
                "prompt_grid",
            )
        ],
        ({"num_classes": 1}, "num_classes=1 must be at least 2"),
        ({"time_steps": 65}, "time_steps=65 exceeds 64; use 1 to 64"),
        ({"top_k": 5}, "top_k=5 exceeds num_experts=4; use 1 to 4"),
        ({"top_k": 4}, "top_k=4 of 4 experts leaves nothing to choose"),
        ({"num_experts": 1}, "routing='dense' with num_experts=1"),
        ({"routing": "dense"}, "routing='dense' has one expert, got num_experts=4"),
        ({"num_heads": 5}, "num_heads=5 does not divide embed_dim=32"),
        ({"stem_strides": (1, 2)}, r"stem_strides=\(1, 2\) needs 3 entries"),
        ({"stem_strides": (1, 0, 1)}, "must be at least 1"),
        ({"stem_channels": (0, 4)}, "must be at least 1"),
        ({"prompt_grid": 3}, "prompt_grid=3 does not divide image_size=8"),
        ({"prompt_grid": 16}, "prompt_grid=16 does not divide image_size=8"),
        ({"relay_kernel": 4}, "relay_kernel=4 must be odd and at least 3"),
        ({"relay_kernel": 1}, "relay_kernel=1 must be odd and at least 3"),
        ({"hold": "window", "hold_step": 4}, r"hold_step=4 must lie in 0\.\.3"),
        ({"hold": "window", "hold_step": -1}, r"hold_step=-1 must lie in 0\.\.3"),
        ({"membrane_decay": 1.0}, r"membrane_decay must lie in \[0, 1\)"),
        ({"membrane_decay": -0.1}, r"membrane_decay must lie in \[0, 1\)"),
        ({"membrane_decay": NAN}, "membrane_decay=nan must be a finite number"),
        ({"threshold": 0.0}, "threshold be positive"),
        ({"threshold": NAN}, "threshold=nan must be a finite number"),
        ({"threshold": float("inf")}, "threshold=inf must be a finite number"),
        ({"neuron": "relu"}, "neuron='relu' needs time_steps=1 and routing='dense'"),
        ({"routing": "topk"}, "routing='topk'; use one of 'top_k', 'dense'"),
        ({"hold": "windw"}, "hold='windw'; use one of 'step', 'window'"),
        ({"neuron": "if"}, "neuron='if'; use one of 'lif', 'relu'"),
        ({"surrogate": "tan"}, "surrogate='tan'; use one of 'atan', 'fast_sigmoid', 'sigmoid'"),
    ],
)
def test_models_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"threads": 0}, "threads=0 must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": NAN}, "learning_rate=nan must be a finite number"),
        ({"learning_rate": float("inf")}, "learning_rate=inf must be a finite number"),
        ({"label_smoothing": 1.0}, r"label_smoothing in \[0, 1\)"),
        ({"label_smoothing": -0.1}, r"label_smoothing in \[0, 1\)"),
        *[
            ({name: -1}, f"{name}=-1 must not be negative")
            for name in (
                "weight_decay",
                "warmup_epochs",
                "balance_weight",
                "entropy_weight",
                "homeostatic_rate",
                "max_shift",
                "seed",
            )
        ],
        ({"weight_decay": NAN}, "weight_decay=nan"),
        ({"homeostatic_rate": float("inf")}, "homeostatic_rate=inf"),
    ],
)
def test_training_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**wrong)


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (ModelConfig, {"time_steps": 4.0}, "time_steps=4.0 is float"),
        (ModelConfig, {"time_steps": True}, "time_steps=True is bool"),
        (ModelConfig, {"threshold": "1"}, "threshold='1' is str"),
        (ModelConfig, {"detach_reset": 1}, "detach_reset=1 is int"),
        (ModelConfig, {"stem_channels": [16, 32]}, "stem_channels"),
        (ModelConfig, {"stem_channels": (16, 2.5)}, "stem_channels"),
        (ModelConfig, {"preset": None}, "preset=None is NoneType"),
        (TrainConfig, {"epochs": "3"}, "epochs='3' is str"),
        (TrainConfig, {"learning_rate": None}, "learning_rate=None"),
    ],
)
def test_values_of_the_wrong_type_are_refused(cls, wrong, message):
    with pytest.raises(TypeError, match=message):
        cls(**wrong)


def test_it_is_frozen_and_by_keyword():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().depth = 3
    with pytest.raises(TypeError, match="positional"):
        ModelConfig("digits")


def test_unknown_names_suggest_the_close_one():
    with pytest.raises(ValueError, match=r"unknown preset 'digit'; did you mean 'digits'\?"):
        get_preset("digit")
    with pytest.raises(ValueError, match=r"unknown preset 'zzz' \(there are: digits"):
        create_model("zzz")
    with pytest.raises(ValueError, match=r"unknown model option 'topk'; did you mean 'top_k'\?"):
        create_model("digits", topk=2)
    assert "did you mean" not in unknown("thing", "xyzzy", ["alpha", "beta"])


def test_presets():
    assert spikingmoe.list_presets() == sorted(PRESETS)
    for name, config in PRESETS.items():
        assert config.preset == name
        assert get_preset(name) is config


def test_override_exchanges_and_validates():
    assert override(ModelConfig(), top_k=3).top_k == 3
    with pytest.raises(ValueError, match="top_k=9 exceeds"):
        override(ModelConfig(), top_k=9)


@pytest.mark.parametrize(
    ("config", "read"),
    [
        (
            ModelConfig(top_k=2, hold="window", stem_channels=(8,), stem_strides=(2, 2)),
            model_config,
        ),
        (ModelConfig(stem_channels=(), stem_strides=(2,)), model_config),
        (TrainConfig(epochs=3, learning_rate=0.125), train_config),
    ],
)
def test_json_round_trip(config, read):
    again = read(json.loads(json.dumps(config.as_dict())))
    for field in dataclasses.fields(config):
        assert getattr(again, field.name) == getattr(config, field.name), field.name
    assert again == config


def test_json_with_other_fields_is_refused():
    values = ModelConfig().as_dict()
    with pytest.raises(ValueError, match="ModelConfig needs exactly the fields"):
        model_config({**values, "extra": 1})
    values.pop("depth")
    with pytest.raises(ValueError, match="ModelConfig needs exactly the fields"):
        model_config(values)
    with pytest.raises(ValueError, match="TrainConfig needs exactly the fields"):
        train_config([1, 2])


@pytest.mark.parametrize(
    ("size", "strides", "side"), [(8, (1, 2, 1), 4), (7, (2, 2, 1), 2), (9, (2, 1, 3), 2)]
)
def test_tokens_per_side(size, strides, side):
    assert ModelConfig(image_size=size, stem_strides=strides, prompt_grid=1).tokens_per_side == side


def test_twins_share_the_shape():
    config = ModelConfig(top_k=2, hold="window", embed_dim=16)
    dense, relu = dense_twin(config), relu_twin(config)
    assert (dense.routing, dense.num_experts, dense.top_k, dense.hold) == ("dense", 1, 1, "step")
    assert (relu.routing, relu.neuron, relu.time_steps) == ("dense", "relu", 1)
    changed = {"routing", "num_experts", "top_k", "hold", "neuron", "time_steps"}
    for twin in (dense, relu):
        for field in dataclasses.fields(config):
            if field.name not in changed:
                assert getattr(twin, field.name) == getattr(config, field.name), field.name
    model = SpikingTransformer(dense)
    assert model.prompt is None
    assert all(block.moe is None for block in model.blocks)
    kinds = {type(m).__name__ for m in SpikingTransformer(relu).modules()}
    assert "LIF" not in kinds
    assert "ReLU" in kinds
