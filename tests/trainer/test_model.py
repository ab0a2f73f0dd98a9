"""The FT-Transformer's promises: shapes, missing and hidden values, gradients, and the map in its graph."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from schemas.datasets import SCHEMAS
from schemas.params import TrainParams
from trainer.model import (
    ClassificationHead,
    FTFeatureTokenizer,
    MaskedFeatureHead,
    ModelConfig,
    QuantileNormalizer,
    TabularExpert,
    TransformerBackbone,
)

B, N, CARDINALITIES, FAMILIES, D = 5, 4, (3, 2), 6, 16
C = len(CARDINALITIES)


@pytest.fixture(params=["linear", "piecewise"])
def model(request: pytest.FixtureRequest) -> TabularExpert:
    torch.manual_seed(0)
    config = ModelConfig(
        n_numeric=N, cardinalities=CARDINALITIES, n_families=FAMILIES, n_knots=3, d_model=D, n_heads=2, n_layers=2,
        d_feedforward=32, numeric_embedding=request.param,
    )  # fmt: skip
    model = TabularExpert(config)
    points = np.tile(np.array([-1, 0, 1], dtype=np.float32), (N, 1))
    model.set_points(points, points)
    if model.tokenizer.bins is not None:
        torch.nn.init.normal_(model.tokenizer.bin_weight)  # as the next
    torch.nn.init.normal_(model.masked_head.weight)  # zero at first: it would hide whatever goes wrong before it
    return model.eval()


def inputs(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    numeric = torch.randn(B, N, generator=generator)
    codes = torch.stack([torch.randint(1, size + 1, (B,), generator=generator) for size in CARDINALITIES], dim=1)
    return numeric, codes


def test_each_part_gives_the_shapes_that_it_states(model: TabularExpert) -> None:
    numeric, codes = inputs()
    tokens = model.tokenizer(numeric, codes)
    assert tokens.shape == (B, 1 + N + C, D)
    assert model.backbone(tokens).shape == (B, 1 + N + C, D)
    cls, attention = model.backbone.cls(tokens)
    assert cls.shape == (B, D) and attention.shape == (B, 1 + N + C)
    values, logits = model.masked_head(model.backbone(tokens)[:, 1:])
    assert values.shape == (B, N) and [logit.shape for logit in logits] == [(B, size) for size in CARDINALITIES]
    attack, family = model.head(cls)
    assert attack.shape == (B,) and family.shape == (B, FAMILIES)


def test_the_whole_graph_gives_probabilities_and_the_attention_to_each_feature(model: TabularExpert) -> None:
    numeric, codes = inputs()
    attack, family, attention = model(numeric, codes)
    assert (attack.shape, family.shape, attention.shape) == ((B,), (B, FAMILIES), (B, N + C))
    assert bool(((attack > 0) & (attack < 1)).all())
    torch.testing.assert_close(family.sum(-1), torch.ones(B))
    with_cls = attention.sum(-1)
    assert bool((attention >= 0).all() and (with_cls < 1).all()), "CLS keeps the rest of the attention"


def test_the_last_layer_for_cls_alone_says_what_the_whole_layer_says(model: TabularExpert) -> None:
    tokens = model.tokenizer(*inputs())
    torch.testing.assert_close(model.backbone.cls(tokens)[0], model.backbone(tokens)[:, 0])


def test_rows_do_not_see_each_other(model: TabularExpert) -> None:
    numeric, codes = inputs()
    together, _ = model.classify(numeric, codes)
    alone = torch.cat([model.classify(numeric[[row]], codes[[row]])[0] for row in range(B)])
    torch.testing.assert_close(together, alone)


def test_a_model_without_categories_and_one_without_numbers_work() -> None:
    for n_numeric, cardinalities in ((3, ()), (0, (2, 5))):
        config = ModelConfig(
            n_numeric=n_numeric, cardinalities=cardinalities, n_families=2, n_knots=2, d_model=8, n_heads=1, n_layers=1,
            d_feedforward=8,
        )  # fmt: skip
        model = TabularExpert(config)
        codes = torch.ones(2, len(cardinalities), dtype=torch.long)
        attack, _, attention = model(torch.zeros(2, n_numeric), codes)
        assert attack.shape == (2,) and attention.shape == (2, n_numeric + len(cardinalities))


def test_a_missing_value_is_the_mask_token_and_all_else_stays_finite(model: TabularExpert) -> None:
    numeric, codes = inputs()
    numeric[0, 2], codes[1, 0] = float("nan"), 0
    tokens = model.tokenizer(numeric, codes)
    bias = model.tokenizer.bias
    torch.testing.assert_close(tokens[0, 1 + 2], model.tokenizer.mask[0] + bias[2])
    torch.testing.assert_close(tokens[1, 1 + N], model.tokenizer.mask[0] + bias[N])
    assert bool(torch.isfinite(tokens).all())
    numeric[:], codes[:] = float("nan"), 0
    for output in model(numeric, codes):
        assert bool(torch.isfinite(output).all()), "even of a flow of which nothing is known"


def test_a_category_that_training_has_not_seen_is_as_if_missing(model: TabularExpert) -> None:
    numeric, codes = inputs()
    unknown, missing = codes.clone(), codes.clone()
    unknown[:, 0], missing[:, 0] = CARDINALITIES[0] + 1, 0
    assert torch.equal(model.known(unknown), missing)
    for ours, theirs in zip(model(numeric, unknown), model(numeric, missing), strict=True):
        assert torch.equal(ours, theirs)


def test_missing_is_the_same_as_hidden(model: TabularExpert) -> None:
    numeric, codes = inputs()
    hidden = torch.zeros(B, N + C, dtype=torch.bool)
    hidden[:, 1] = hidden[:, N] = True
    gone_numeric, gone_codes = numeric.clone(), codes.clone()
    gone_numeric[:, 1], gone_codes[:, 0] = float("nan"), 0
    assert torch.equal(model.tokenizer(numeric, codes, hidden), model.tokenizer(gone_numeric, gone_codes))


def test_hidden_features_do_not_reach_any_output(model: TabularExpert) -> None:
    numeric, codes = inputs()
    hidden = torch.zeros(B, N + C, dtype=torch.bool)
    hidden[:, 0] = hidden[:, N + 1] = True
    other_numeric, other_codes = numeric.clone(), codes.clone()
    other_numeric[:, 0] += 100
    other_codes[:, 1] = 3 - other_codes[:, 1]

    def outputs(numeric: Tensor, codes: Tensor, hidden: Tensor) -> list[Tensor]:
        values, logits = model.reconstruct(numeric, codes, hidden)
        return [values, *logits, *model.classify(numeric, codes, hidden)]

    for here, there in zip(outputs(numeric, codes, hidden), outputs(other_numeric, other_codes, hidden), strict=True):
        assert torch.equal(here, there)
    shown = torch.zeros_like(hidden)
    changed = zip(outputs(numeric, codes, shown), outputs(other_numeric, other_codes, shown), strict=True)
    assert all(not torch.equal(here, there) for here, there in changed), "and shown, they reach every one"


def test_every_parameter_learns_from_pretraining_or_finetuning(model: TabularExpert) -> None:
    numeric, codes = inputs()
    codes[:, 0] = torch.tensor([1, 2, 3, 1, 2])
    codes[:, 1] = torch.tensor([1, 2, 1, 2, 0])
    hidden = torch.rand(B, N + C, generator=torch.Generator().manual_seed(0)) < 0.3
    values, logits = model.reconstruct(numeric, codes, hidden)
    (values.square().sum() + sum(logit.logsumexp(-1).sum() for logit in logits)).backward()
    used = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert not any(name.startswith("head.") for name in used)
    attack, family = model.classify(numeric, codes)
    (attack.sum() + family.logsumexp(-1).sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_parameter_groups_hold_every_parameter_once_and_decay_matrices_alone(model: TabularExpert) -> None:
    decayed, spared = model.parameter_groups(0.03)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.03, 0.0)
    grouped = [*decayed["params"], *spared["params"]]  # type: ignore[misc]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert Counter(map(id, grouped)) == Counter(names.keys())
    for parameter in decayed["params"]:  # type: ignore[attr-defined]
        name = names[id(parameter)]
        assert parameter.ndim == 2 and name.endswith("weight") and "norm" not in name, name
        assert not name.startswith(("tokenizer.", "masked_head.")), name
    assert {names[id(parameter)] for parameter in decayed["params"]} >= {  # type: ignore[attr-defined]
        "head.attack.weight", "backbone.blocks.0.attention.in_proj_weight", "backbone.blocks.1.feedforward.2.weight",
    }  # fmt: skip


def test_the_default_model_of_cicids2017_has_about_800_thousand_parameters() -> None:
    params, schema = TrainParams(), SCHEMAS["cicids2017"]
    assert len(schema.numeric) == 68
    config = ModelConfig(
        n_numeric=68, cardinalities=(), n_families=len(schema.attack_families), n_knots=128, d_model=params.d_model,
        n_heads=params.n_heads, n_layers=params.n_layers, d_feedforward=params.d_feedforward,
    )  # fmt: skip
    count = sum(parameter.numel() for parameter in TabularExpert(config).parameters())
    assert 750_000 < count < 950_000


def test_a_config_builds_the_same_model_again(model: TabularExpert) -> None:
    again = TabularExpert(ModelConfig(**model.config.to_dict()))  # type: ignore[arg-type]
    again.load_state_dict(model.state_dict())
    for ours, theirs in zip(model(*inputs()), again.eval()(*inputs()), strict=True):
        assert torch.equal(ours, theirs)


def test_a_width_that_heads_do_not_divide_is_an_error_that_names_both() -> None:
    with pytest.raises(ValueError, match=r"d_model \(10\) must be a multiple of train.n_heads \(4\)"):
        TransformerBackbone(d_model=10, n_heads=4, n_layers=1, d_feedforward=8)


def test_a_tokenizer_without_features_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"needs features: n_numeric=0, cardinalities=\[\]"):
        FTFeatureTokenizer(n_numeric=0, cardinalities=(), d_model=8)


def test_heads_alone_take_any_batch() -> None:
    masked = MaskedFeatureHead(n_numeric=2, cardinalities=(4,), d_model=8)
    values, (logit,) = masked(torch.ones(3, 3, 8))
    assert values.shape == (3, 2) and logit.shape == (3, 4)
    attack, family = ClassificationHead(d_model=8, n_families=2)(torch.ones(0, 8))
    assert attack.shape == (0,) and family.shape == (0, 2)


# Numeric tokens by bins.


def test_a_piecewise_token_adds_to_the_linear_one_what_each_bin_gives_as_far_as_the_value_has_come_through_it() -> None:
    tokenizer = FTFeatureTokenizer(n_numeric=2, cardinalities=(), d_model=3, n_edges=4)
    assert tokenizer.bins is not None and not bool(tokenizer.bin_weight.any())
    tokenizer.bins.edges.copy_(torch.tensor([[0.0, 1.0, 3.0, 3.0], [-2.0, -1.0, 0.0, 10.0]]))
    linear = tokenizer(torch.tensor([[2.0, -5.0], [99.0, 5.0]]), torch.empty(2, 0, dtype=torch.long))
    torch.nn.init.normal_(tokenizer.bin_weight)
    got = tokenizer(torch.tensor([[2.0, -5.0], [99.0, 5.0]]), torch.empty(2, 0, dtype=torch.long))
    bins = torch.tensor([[[1, 0.5, 0], [0, 0, 0]], [[1, 1, 0], [1, 1, 0.5]]])
    expected = linear[:, 1:] + torch.einsum("bnk,nkd->bnd", bins, tokenizer.bin_weight)
    torch.testing.assert_close(got[:, 1:], expected)


def test_the_bins_of_a_piecewise_model_are_those_of_the_preprocessors_map() -> None:
    config = ModelConfig(
        n_numeric=1, cardinalities=(), n_families=2, n_knots=3, d_model=8, numeric_embedding="piecewise"
    )
    model = TabularExpert(config)
    knots, heights = np.array([[1, 10, 100]], dtype=np.float32), np.array([[-2, 0, 2]], dtype=np.float32)
    model.set_points(knots, heights)
    assert model.tokenizer.bins is not None
    raw = torch.tensor([[0.0], [5.5], [10.0], [55.0], [1e9]])
    torch.testing.assert_close(model.tokenizer.bins(model.normalizer(raw)), model.normalizer.knots(raw))


# The preprocessor's map, as part of the graph.


def normalizer(knots: np.ndarray, heights: np.ndarray) -> QuantileNormalizer:
    made = QuantileNormalizer(n_numeric=len(knots), n_knots=knots.shape[1])
    made.set_points(knots.astype(np.float32), heights.astype(np.float32))
    return made


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Points as `fit` makes them: strictly rising knots of any scale, padded by repeating the last."""
    n_knots = draw(st.integers(2, 12))
    scale = 10.0 ** draw(st.integers(-6, 12))
    steps = draw(st.lists(st.floats(1e-3, 1.0), min_size=n_knots, max_size=n_knots))
    start = draw(st.floats(-2.0, 2.0))
    knots = ((start + np.cumsum(steps)) * scale).astype(np.float32)
    heights = (np.linspace(-3.7, 3.7, n_knots) + draw(st.floats(0, 0.5))).astype(np.float32)
    last = draw(st.integers(1, n_knots - 1))
    knots[last:], heights[last:] = knots[last], heights[last]
    return knots, heights


@settings(deadline=None)
@given(maps(), st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=8))
def test_the_map_in_the_graph_is_numpys_interpolation(
    points: tuple[np.ndarray, np.ndarray], shares: list[float]
) -> None:
    knots, heights = points
    span = np.float64(knots[-1]) - np.float64(knots[0])
    x = np.concatenate([knots, knots[0] + np.array(shares) * span, [-3e38, 3e38]]).astype(np.float32)
    got = normalizer(knots[None], heights[None])(torch.from_numpy(x[:, None]))[:, 0].numpy()
    expected = np.interp(x.astype(np.float64), knots.astype(np.float64), heights.astype(np.float64))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_values_beyond_the_last_point_keep_its_height_and_missing_ones_stay_missing() -> None:
    knots, heights = np.array([[1.0, 2.0, 4.0], [5.0, 5.0, 5.0]]), np.array([[-2.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    x = torch.tensor([[3e38, 3e38], [-3e38, -3e38], [float("nan"), 5.0], [3.0, float("nan")]])
    got = normalizer(knots, heights)(x)
    assert got[:2].tolist() == [[2.0, 0.0], [-2.0, 0.0]]
    assert got.isnan().tolist() == [[False, False], [False, False], [True, False], [False, True]]
    assert (got[2, 1].item(), got[3, 0].item()) == (0.0, 1.0)


def test_each_feature_has_a_map_of_its_own() -> None:
    rng = np.random.default_rng(0)
    knots = np.sort(rng.lognormal(3, 3, (7, 64)).astype(np.float32), axis=1)
    heights = np.sort(rng.normal(size=(7, 64)).astype(np.float32), axis=1)
    x = rng.lognormal(3, 3, (200, 7)).astype(np.float32)
    got = normalizer(knots, heights)(torch.from_numpy(x)).numpy()
    expected = np.column_stack([np.interp(x[:, n], knots[n], heights[n]) for n in range(7)])
    np.testing.assert_allclose(got, expected, atol=1e-5)
