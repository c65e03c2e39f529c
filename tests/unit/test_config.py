"""Configuration: every combination that cannot work is refused with what to do instead."""

import dataclasses
import itertools
import json
import random
from typing import get_args, get_type_hints

import pytest
import torch
from tiny_models import tiny_config, tiny_images

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
                "num_groups",
                "mixture_every",
                "chain_length",
                "prompt_width",
                "prompt_grid",
            )
        ],
        ({"shared_experts": -1}, "shared_experts=-1 must not be negative"),
        ({"mlp_width": -1}, "mlp_width=-1 must not be negative"),
        ({"num_classes": 1}, "num_classes=1 must be at least 2"),
        ({"time_steps": 65}, "time_steps=65 exceeds 64; use 1 to 64"),
        ({"top_k": 5}, "top_k=5 exceeds num_experts=4; use 1 to 4"),
        ({"num_experts": 65}, "num_experts=65 exceeds 64; use 1 to 64"),
        ({"num_experts": 1}, "num_experts=1 leaves nothing to choose; .* or routing='dense'"),
        ({"routing": "dense"}, "routing='dense' has one expert, got num_experts=4"),
        ({"num_heads": 5}, "num_heads=5 does not divide embed_dim=32"),
        ({"stem_strides": (1, 2)}, r"stem_strides=\(1, 2\) needs 3 entries"),
        ({"stem_strides": (1, 0, 1)}, "must be at least 1"),
        ({"stem_channels": (0, 4)}, "must be at least 1"),
        ({"prompt_grid": 3}, "prompt_grid=3 does not divide image_size=8"),
        ({"prompt_grid": 16}, "prompt_grid=16 does not divide image_size=8"),
        ({"relay_stride": 0}, "relay_stride=0 must be at least 1"),
        ({"relay_stride": 3}, "relay_stride=3 does not divide image_size=8"),
        ({"relay_stride": 8}, "prompt_grid=2 does not divide image_size / relay_stride = 1"),
        ({"relay_kernel": 4}, "relay_kernel=4 must be odd and at least 3"),
        ({"relay_kernel": 1}, "relay_kernel=1 must be odd and at least 3"),
        ({"hold": "window", "hold_step": 4}, r"hold_step=4 must lie in 0\.\.3"),
        ({"hold": "window", "hold_step": -1}, "hold_step=-1 must not be negative"),
        ({"hold_step": -1}, "hold_step=-1 must not be negative"),
        ({"membrane_decay": 1.0}, r"membrane_decay must lie in \[0, 1\)"),
        ({"membrane_decay": -0.1}, r"membrane_decay must lie in \[0, 1\)"),
        ({"membrane_decay": NAN}, "membrane_decay=nan must be a finite number"),
        ({"threshold": 0.0}, "threshold be positive"),
        ({"threshold": NAN}, "threshold=nan must be a finite number"),
        ({"threshold": float("inf")}, "threshold=inf must be a finite number"),
        ({"neuron": "relu"}, "neuron='relu' needs time_steps=1 and routing='dense'"),
        ({"routing": "topk"}, "routing='topk'; use one of 'top_k', 'noisy_top_k', 'threshold'"),
        ({"route_by": "batch"}, "route_by='batch'; use one of 'token', 'image'"),
        ({"router_input": "x"}, "router_input='x'; use one of 'spikes', 'membrane', 'none'"),
        ({"gate_gradient": "soft"}, "gate_gradient='soft'; use one of 'full', 'chosen', 'margin'"),
        ({"dispatch": "sparse"}, "dispatch='sparse'; use one of 'auto', 'masked', 'grouped'"),
        ({"chain": "width"}, "chain='width'; use one of 'none', 'depth', 'time'"),
        ({"prompt": "text"}, "prompt='text'; use one of 'learned', 'random', 'noise', 'none'"),
        ({"attention": "soft"}, "attention='soft'; use one of 'qk', 'sdsa', 'dwconv', 'ssa'"),
        # stages
        ({"early_depths": (0,)}, r"early_depths=\(0,\) must be at least 1 each"),
        (
            {"early_depths": (1, 1), "embed_dim": 30, "num_heads": 1},
            "embed_dim=30 is halved for each of 2 early stages; use a multiple of 4",
        ),
        ({"early_depths": (1,), "expert_width": 9}, "expert_width=9 is halved .* multiple of 2"),
        (
            {"early_depths": (1,), "mlp_width": 9, "mixture_every": 2},
            "mlp_width=9 is halved .* multiple of 2",
        ),
        (
            {"early_depths": (1,), "embed_dim": 10, "num_heads": 5},
            "num_heads=2 does not divide embed_dim=5",
        ),  # the last stage fits, 5 of 10; the one before does not
        # what needs a mixture
        *[
            ({"routing": "dense", "num_experts": 1, name: value}, f"{name}={value!r} needs a mix")
            for name, value in {
                "shared_experts": 1,
                "mixture_every": 2,
                "chain": "depth",
                "cortical_feedback": True,
                "hold": "window",
                "route_by": "image",
                "router_input": "membrane",
                "gate_gradient": "none",
                "dispatch": "masked",
                "prompt": "noise",
            }.items()
        ],
        ({"mixture_every": 3}, "mixture_every=3 leaves no mixture among 2 blocks; use 1 to 2"),
        ({"mlp_width": 8}, "mlp_width=8 is for dense blocks and every block is a mixture"),
        # experts
        ({"num_groups": 2}, "num_groups=2 needs routing='hierarchical', got 'top_k'"),
        *[
            (
                {"routing": "hierarchical", "num_groups": groups},
                f"num_groups={groups} must be a proper divisor of num_experts=4, at least 2",
            )
            for groups in (1, 3, 4, 8)
        ],
        (
            {"routing": "hierarchical", "num_groups": 2, "top_k": 3},
            "top_k=3 exceeds the 2 experts of a group; use 1 to 2",
        ),
        (
            {"routing": "noisy_top_k", "gate_gradient": "none"},
            "learns the size of its noise from the gates' gradient; use gate_gradient 'full'",
        ),
        (
            {"dispatch": "grouped", "gate_gradient": "full"},
            "gate_gradient='full' needs the outputs of unchosen experts",
        ),
        # router
        *[
            ({"routing": "hash", **more}, "routing='hash' hashes the token's spikes alone")
            for more in ({}, {"prompt": "none", "router_input": "membrane"})
        ],
        *[
            ({"routing": "expert_choice", **more}, "'expert_choice' compares the tokens of an im")
            for more in (
                {"route_by": "image"},
                {"router_input": "none"},
                {"router_input": "none", "route_by": "image"},
            )
        ],
        (
            {"routing": "expert_choice", "stem_strides": (2, 2, 2)},
            r"lets tokens compete, and image_size=8 with stem_strides=\(2, 2, 2\) .* leaves one",
        ),
        (
            {"routing": "expert_choice", "stem_strides": (2, 2, 1), "early_depths": (1,)},
            "and 1 early stages leaves one",
        ),
        (
            {"router_input": "none", "prompt": "none", "route_by": "image"},
            "router_input='none' and prompt='none' leave nothing to route by",
        ),
        ({"router_input": "none"}, "router_input='none' cannot tell tokens apart; use route_by"),
        # prompt
        ({"input_channels": 4}, "relay cells know 1 .grey., 2 .events. and 3 .colour.; use prompt"),
        *[
            (
                {"cortical_feedback": True, "prompt": prompt},
                f"cortical_feedback=True needs prompt='learned', got '{prompt}'",
            )
            for prompt in ("random", "noise", "none")
        ],
        ({"cortical_feedback": True, "depth": 1}, "cortical_feedback=True needs at least 2 block"),
        # chain
        ({"chain": "depth"}, "chain='depth' needs chain_length of at least 2, got 1"),
        ({"chain_length": 2}, "chain_length=2 needs chain='depth', got 'none'"),
        ({"chain": "time", "chain_length": 2}, "chain_length=2 needs chain='depth', got 'time'"),
        *[
            ({"chain": "time", **more}, "chain='time' decides step by step; use hold='step' and no")
            for more in ({"hold": "window"}, {"cortical_feedback": True})
        ],
        (
            {"chain": "time", "routing": "noisy_top_k"},
            "chain='time' computes earlier steps again at each step, with other noise",
        ),
        ({"hold": "windw"}, "hold='windw'; use one of 'step', 'window'"),
        ({"neuron": "if"}, "neuron='if'; use one of 'lif', 'norse', 'relu', 'quantised_relu'"),
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
                "train_samples",
                "balance_weight",
                "importance_weight",
                "z_weight",
                "entropy_weight",
                "variance_weight",
                "orthogonality_weight",
                "budget_weight",
                "synops_budget",
                "synops_weight",
                "rate_weight",
                "homeostatic_rate",
                "temperature_epochs",
                "max_shift",
                "seed",
            )
        ],
        (
            {"synops_budget": 0.6},
            "synops_budget=0.6 is a number of synaptic operations per image, not a",
        ),
        ({"rate_target": 1.0}, "rate_target=1.0 is spikes per neuron and step; use 0 to below 1"),
        ({"rate_target": 0.1}, "rate_target=0.1 needs a rate_weight above 0"),
        ({"seed": 2**32}, r"seed=4294967296 must be below 2\*\*32"),
        ({"initial_temperature": 0.5}, "initial_temperature=0.5 must be at least 1"),
        ({"initial_temperature": 2.0}, r"needs temperature_epochs in 1\.\.40, .*; got 0"),
        (
            {"initial_temperature": 2.0, "temperature_epochs": 41},
            r"needs temperature_epochs in 1\.\.40, .*; got 41",
        ),
        ({"temperature_epochs": 3}, "temperature_epochs=3 has nothing to lower"),
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


CHOICES = {
    name: get_args(hint)
    for name, hint in get_type_hints(ModelConfig).items()
    if str(hint).startswith("typing.Literal")
}


def fitting(options):
    """Tiny sizes that suit the options, so that only the options themselves can be refused."""
    dense, relu = options["routing"] == "dense", "relu" in options["neuron"]
    return {
        "time_steps": 1 if relu else 2,
        "activation_bits": 3 if options["neuron"] == "quantised_relu" else 0,
        "hold_step": 0,
        "depth": 2 if options["cortical_feedback"] else 1,
        "num_experts": 1 if dense else 4,
        "num_groups": 2 if options["routing"] == "hierarchical" else 1,
        "chain_length": 2 if options["chain"] == "depth" else 1,
    }


def built(options):
    """The configuration, or None if it is refused; any other error is a failure."""
    try:
        return tiny_config(**options)
    except ValueError as refusal:
        message = str(refusal)
    assert message.startswith("model 'tiny': "), message
    assert len(message) < 300
    return None


def assert_it_trains(config, options):
    """Forward and backward work, and each parameter that is trained hears of the loss."""
    model = SpikingTransformer(config).train()
    out = model(tiny_images(config, 3))
    losses = [torch.stack(list(vars(info.losses).values())).sum() for info in out.routing]
    loss = out.logits.square().sum() + sum(losses)
    assert torch.isfinite(loss), options
    loss.backward()
    deaf = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert deaf == [], options
    for name, p in model.named_parameters():
        assert p.grad is None or torch.isfinite(p.grad).all(), (name, options)
    model.adapt(out.routing, 0.01)


def test_every_combination_of_choices_runs_or_is_refused_at_once():
    """The full product is built or refused; any three choices that go together are run together."""
    torch.manual_seed(0)
    names = [n for n in CHOICES if n not in ("surrogate", "attention", "local_mixing")]
    every = list(itertools.product(*(CHOICES[n] for n in names)))
    random.Random(0).shuffle(every)
    seen, runs, refused = set(), 0, 0
    others = itertools.cycle(
        itertools.product(
            CHOICES["attention"], CHOICES["surrogate"], (False, True), CHOICES["local_mixing"]
        )
    )
    for values in every:
        options = dict(zip(names, values, strict=True))
        triples = set(itertools.combinations(options.items(), 3))
        attention, surrogate, feedback, mixing = next(others)
        options |= {"attention": attention, "surrogate": surrogate, "local_mixing": mixing}
        options["cortical_feedback"] = feedback and options["routing"] != "dense"  # few are left
        config = built(fitting(options) | options)
        refused += config is None
        if config is not None and not triples <= seen:
            seen |= triples
            runs += 1
            assert_it_trains(config, options)
    assert len(every) == 8 * 2 * 3 * 4 * 3 * 2 * 3 * 4 * 4
    assert runs > 200, runs
    for name, choices in CHOICES.items():
        if name in names:
            run = {v for triple in seen for n, v in triple if n == name}
            assert run == set(choices), "each choice must have run"
    assert 0.5 < refused / len(every) < 1


def test_random_sizes_run_or_are_refused_at_once():
    """Small whole numbers, sensible or not, with random choices."""
    torch.manual_seed(0)
    rng, runs = random.Random(1), 0
    sizes = {
        name: (-1, 6)
        for name, hint in get_type_hints(ModelConfig).items()
        if hint is int and name not in ("relay_kernel", "image_size", "prompt_grid")
    }
    for _ in range(14_000):
        options = {name: rng.choice(choices) for name, choices in CHOICES.items()}
        options["cortical_feedback"] = rng.random() < 0.2
        plain = fitting(options)
        for name in rng.sample(sorted(sizes), 4):
            plain[name] = rng.randint(*sizes[name])
        options |= plain | {
            "image_size": rng.choice((2, 4, 6)),
            "prompt_grid": rng.choice((1, 2)),
            "relay_kernel": rng.choice((3, 5, 7)),
            "stem_strides": (rng.randint(1, 3), rng.randint(1, 2)),
            "early_depths": rng.choice(((), (), (1,), (2, 1))),
        }
        config = built(options)
        if config is not None and rng.random() < 0.6:
            runs += 1
            assert_it_trains(config, options)
    assert runs > 40, runs


@pytest.mark.parametrize(
    ("index", "dim", "heads", "width", "mlp", "feedback"),
    [(0, 8, 1, 4, 2, True), (1, 16, 2, 8, 4, True), (2, 32, 4, 16, 8, True)],
)
def test_stages_have_half_of_the_next(index, dim, heads, width, mlp, feedback):
    config = ModelConfig(
        embed_dim=32,
        num_heads=4,
        expert_width=16,
        mlp_width=8,
        early_depths=(1, 2),
        depth=3,
        mixture_every=2,
        cortical_feedback=True,
    )
    stage = config.stage(index)
    assert (stage.embed_dim, stage.num_heads, stage.expert_width) == (dim, heads, width)
    assert (stage.mlp_width, stage.dense_width) == (mlp, mlp)
    assert stage.cortical_feedback is feedback
    assert [stage.has_mixture(i) for i in range(6)] == [False, True] * 3
    kept = {"embed_dim", "num_heads", "expert_width", "mlp_width", "depth", "early_depths"}
    for field in dataclasses.fields(config):
        if field.name not in kept:
            assert getattr(stage, field.name) == getattr(config, field.name), field.name
    model = SpikingTransformer(config)
    assert [block.moe is not None for block in model.blocks] == [False, True] * 3
    first = sum(config.stage_depths[:index])
    for block in model.blocks[first : first + config.stage_depths[index]]:
        mlp_layer = block.mlp.mlp.up if block.mlp is not None else None
        assert mlp_layer is None or mlp_layer.linear.weight.shape == (mlp, dim)
        assert block.moe is None or block.moe.experts.weight1.shape == (4, width, dim)


def test_it_is_frozen_and_by_keyword():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().depth = 3
    with pytest.raises(TypeError, match="positional"):
        ModelConfig("digits")


def test_unknown_names_suggest_the_close_one():
    with pytest.raises(ValueError, match=r"unknown preset 'digit'; did you mean 'digits'\?"):
        get_preset("digit")
    with pytest.raises(ValueError, match=r"unknown preset 'zzz' \(there are: .*digits, "):
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
    with pytest.raises(ValueError, match="ModelConfig has no fields extra"):
        model_config({**values, "extra": 1})
    with pytest.raises(ValueError, match="TrainConfig needs names and values, got list"):
        train_config([1, 2])


def test_what_an_older_file_does_not_name_has_its_default():
    """Files were written before there was local mixing, or a choice of optimisers."""
    values = ModelConfig(depth=3).as_dict()
    values.pop("local_mixing")
    assert model_config(values) == ModelConfig(depth=3, local_mixing="none")
    recipe = TrainConfig(epochs=3).as_dict()
    recipe.pop("optimizer")
    assert train_config(recipe) == TrainConfig(epochs=3, optimizer="adamw")


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
