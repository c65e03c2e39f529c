"""What the routing benchmark compares: one table of variants, each a change of one preset.

Long because it is a table; what a variant is and how names are chosen is short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spikingmoe.config import ModelConfig, TrainConfig, dense_twin, unknown
from spikingmoe.sizes import equal_parameters_width

DENSE = "dense_1x"  # one expert's width: about the mixture's synaptic operations, experts part
DENSE_PARAMETERS = "dense_params"
REFERENCE = "mixture"


def _same_model(config: ModelConfig) -> ModelConfig:
    return config


def _same_training(settings: TrainConfig) -> TrainConfig:
    return settings


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A named change of the preset and of the recipe.

    Attributes:
        family: variants that answer one question; a colour in the plot, a name for `--variants`.
        about: one line for the table's legend.
    """

    name: str
    family: str
    about: str
    model: Callable[[ModelConfig], ModelConfig] = _same_model
    train: Callable[[TrainConfig], TrainConfig] = _same_training

    def configs(self, base: ModelConfig, settings: TrainConfig) -> tuple[ModelConfig, TrainConfig]:
        """Model and recipe of this variant; ValueError, with its name, if they are not allowed."""
        try:
            return self.model(base), self.train(settings)
        except ValueError as error:
            raise ValueError(f"variant '{self.name}': {error}") from None


def _dense(share: float) -> Callable[[ModelConfig], ModelConfig]:
    """The dense twin at `share` times the width of one expert, rounded to what stages can halve."""

    def change(base: ModelConfig) -> ModelConfig:
        step = 2 ** len(base.early_depths)
        width = max(1, round(share * base.expert_width / step)) * step
        return dense_twin(base, mlp_width=width)

    return change


def _thin(c: ModelConfig, parts: int, **more: int) -> ModelConfig:
    """Experts cut into `parts`: as many parameters in more, thinner experts."""
    cut = {"num_experts": parts * c.num_experts, "expert_width": c.expert_width // parts} | more
    return replace(c, **cut)  # type: ignore[arg-type]


VARIANTS: tuple[Variant, ...] = (
    Variant(
        name=DENSE,
        family="dense",
        about="dense twin, one expert's width",
        model=_dense(1),
    ),
    Variant(
        name="dense_half",
        family="dense",
        about="dense twin, half an expert's width",
        model=_dense(0.5),
    ),
    Variant(
        name="dense_1.5x", family="dense", about="dense twin, 1.5 x the width", model=_dense(1.5)
    ),
    Variant(name="dense_2x", family="dense", about="dense twin, 2 x the width", model=_dense(2)),
    Variant(name="dense_3x", family="dense", about="dense twin, 3 x the width", model=_dense(3)),
    Variant(
        name=DENSE_PARAMETERS,
        family="dense",
        about="dense twin at the mixture's number of parameters",
        model=lambda c: dense_twin(c, mlp_width=equal_parameters_width(c)),
    ),
    Variant(name=REFERENCE, family="top-k", about="the preset as it is"),
    Variant(
        name="top1",
        family="top-k",
        about="one expert per token",
        model=lambda c: replace(c, routing="top_k", top_k=1),
    ),
    Variant(
        name="top2",
        family="top-k",
        about="two experts per token",
        model=lambda c: replace(c, routing="top_k", top_k=2),
    ),
    Variant(
        name="halves",
        family="experts",
        about="2 K of 2 E experts of half the width",
        model=lambda c: _thin(c, 2, top_k=2 * c.top_k),
    ),
    Variant(
        name="gradient_full",
        family="gradient",
        about="gate gradient straight through, unchosen experts included",
        model=lambda c: replace(c, gate_gradient="full", dispatch="auto"),
    ),
    Variant(
        name="gradient_chosen",
        family="gradient",
        about="gate gradient through open gates only",
        model=lambda c: replace(c, gate_gradient="chosen"),
    ),
    Variant(
        name="gradient_margin",
        family="gradient",
        about="gate gradient through open gates, by the score margin",
        model=lambda c: replace(c, gate_gradient="margin"),
    ),
    Variant(
        name="gradient_none",
        family="gradient",
        about="no gate gradient: routing losses and homeostasis alone train the router",
        model=lambda c: replace(c, gate_gradient="none"),
    ),
    Variant(
        name="noisy_top_k",
        family="gate",
        about="learned noise on the scores while training",
        model=lambda c: replace(c, routing="noisy_top_k"),
    ),
    Variant(
        name="threshold",
        family="gate",
        about="every expert with a positive score; homeostasis aims at K",
        model=lambda c: replace(c, routing="threshold"),
    ),
    Variant(
        name="dynamic",
        family="gate",
        about="learned thresholds, budget loss 0.1 aims at K",
        model=lambda c: replace(c, routing="dynamic"),
        train=lambda s: replace(s, budget_weight=0.1),
    ),
    Variant(
        name="expert_choice",
        family="gate",
        about="experts choose tokens",
        model=lambda c: replace(c, routing="expert_choice"),
    ),
    Variant(
        name="hash",
        family="gate",
        about="frozen hash of the token, no prompt",
        model=lambda c: replace(
            c, routing="hash", prompt="none", router_input="spikes", cortical_feedback=False
        ),
    ),
    Variant(
        name="hierarchical",
        family="gate",
        about="the best of 2 groups, then experts in it",
        model=lambda c: replace(c, routing="hierarchical", num_groups=2),
    ),
    Variant(
        name="by_token",
        family="scope",
        about="one decision per token and step",
        model=lambda c: replace(c, route_by="token", hold="step"),
    ),
    Variant(
        name="by_image",
        family="scope",
        about="one decision per image and step",
        model=lambda c: replace(c, route_by="image", hold="step"),
    ),
    Variant(
        name="window",
        family="scope",
        about="one decision per token, held for the window",
        model=lambda c: replace(c, route_by="token", hold="window"),
    ),
    Variant(
        name="image_window",
        family="scope",
        about="one decision per image, held for the window",
        model=lambda c: replace(c, route_by="image", hold="window"),
    ),
    Variant(
        name="shared",
        family="experts",
        about="experts of half the width: one always on, 2 K - 1 of 2 E - 1 chosen",
        model=lambda c: _thin(
            c, 2, num_experts=2 * c.num_experts - 1, top_k=2 * c.top_k - 1, shared_experts=1
        ),
    ),
    Variant(
        name="fine",
        family="experts",
        about="4 K of 4 E experts of a quarter of the width",
        model=lambda c: _thin(c, 4, top_k=4 * c.top_k),
    ),
    Variant(
        name="alternating",
        family="experts",
        about="every second block is a mixture, the others dense",
        model=lambda c: replace(c, mixture_every=2),
    ),
    Variant(
        name="chain_depth",
        family="experts",
        about="the experts twice in a row, each time routed anew",
        model=lambda c: replace(c, chain="depth", chain_length=2),
    ),
    Variant(
        name="chain_time",
        family="experts",
        about="the experts' output enters the next time step",
        model=lambda c: replace(c, chain="time", hold="step", cortical_feedback=False),
    ),
    Variant(
        name="prompt_none",
        family="prompt",
        about="no prompt: the token's spikes alone",
        model=lambda c: replace(c, prompt="none", router_input="spikes", cortical_feedback=False),
    ),
    Variant(
        name="prompt_random",
        family="prompt",
        about="frozen random prompt",
        model=lambda c: replace(c, prompt="random", cortical_feedback=False),
    ),
    Variant(
        name="prompt_noise",
        family="prompt",
        about="prompt bits that do not depend on the image",
        model=lambda c: replace(c, prompt="noise", cortical_feedback=False),
    ),
    Variant(
        name="prompt_only",
        family="prompt",
        about="the prompt alone, one decision per image",
        model=lambda c: replace(c, prompt="learned", router_input="none", route_by="image"),
    ),
    Variant(
        name="feedback",
        family="prompt",
        about="cortical feedback: a prompt per block",
        model=lambda c: replace(c, prompt="learned", cortical_feedback=True),
    ),
    Variant(
        name="sparse_relay",
        family="prompt",
        about="relay cells at every second pixel",
        model=lambda c: replace(c, relay_stride=2 * c.relay_stride),
    ),
    Variant(
        name="membrane",
        family="prompt",
        about="the router reads membranes: linear, unconstrained",
        model=lambda c: replace(c, router_input="membrane"),
    ),
    Variant(
        name="no_homeostasis",
        family="training",
        about="homeostatic bias stays at 0",
        train=lambda s: replace(s, homeostatic_rate=0.0),
    ),
    Variant(
        name="no_losses",
        family="training",
        about="no routing loss; homeostasis alone balances",
        train=lambda s: replace(s, balance_weight=0.0, entropy_weight=0.0),
    ),
    Variant(
        name="balance_strong",
        family="training",
        about="Switch balance loss x 0.1",
        train=lambda s: replace(s, balance_weight=0.1),
    ),
    Variant(
        name="importance",
        family="training",
        about="importance loss x 0.1 in place of the balance loss",
        train=lambda s: replace(s, balance_weight=0.0, importance_weight=0.1),
    ),
    Variant(
        name="z_loss",
        family="training",
        about="router z-loss x 0.001",
        train=lambda s: replace(s, z_weight=1e-3),
    ),
    Variant(
        name="variance",
        family="training",
        about="variance loss x 0.1",
        train=lambda s: replace(s, variance_weight=0.1),
    ),
    Variant(
        name="orthogonality",
        family="training",
        about="orthogonality loss x 0.1",
        train=lambda s: replace(s, orthogonality_weight=0.1),
    ),
    Variant(
        name="temperature",
        family="training",
        about="soft gates annealed from temperature 4 to 1 over half of the epochs",
        train=lambda s: replace(
            s, initial_temperature=4.0, temperature_epochs=max(1, s.epochs // 2)
        ),
    ),
)
FAMILIES = tuple(dict.fromkeys(v.family for v in VARIANTS))


def choose_variants(words: Sequence[str]) -> list[Variant]:
    """Variants by name or family, in the table's order; all without words.

    The two dense twins that every mixture is compared with are always among them.

    Raises:
        ValueError: for a word that is neither; it lists what there is.
    """
    names = {v.name for v in VARIANTS}
    for word in words:
        if word not in names and word not in FAMILIES:
            raise ValueError(unknown("variant or family", word, names | set(FAMILIES)))
    wanted = {*words, DENSE, DENSE_PARAMETERS}  # names; a family only if it was asked for
    return [v for v in VARIANTS if not words or v.name in wanted or v.family in words]


def same_as(base: ModelConfig, settings: TrainConfig) -> dict[str, str]:
    """By variant, the first of the table with the same model and recipe: they share one run.

    Variants that this preset does not allow are left out.
    """
    first: dict[tuple[ModelConfig, TrainConfig], str] = {}
    found = {}
    for variant in VARIANTS:
        try:
            configs = variant.configs(base, settings)
        except ValueError:
            continue
        found[variant.name] = first.setdefault(configs, variant.name)
    return found
