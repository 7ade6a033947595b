"""The Mamba against transformers' own, step against forward, and the scan's gradient against finite differences."""

import pytest
import torch

from ecg_batch.bundled import BUNDLED
from ecg_batch.models.decode import load_models
from ecg_batch.models.mamba import MambaConfig, MambaLM, SelectiveScan


def random_mamba(config: MambaConfig) -> MambaLM:
    """Every parameter moved away from its initial value, so that no term can be missing unseen."""
    torch.manual_seed(1)
    model = MambaLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def trained_mamba() -> MambaLM:
    return load_models(BUNDLED).mamba


@pytest.fixture(params=["random", "random 3 layers", "trained"])
def model(request) -> MambaLM:
    if request.param == "trained":
        return trained_mamba()
    odd = MambaConfig(n_layer=3, d_model=48, d_state=8, d_conv=3)
    return random_mamba(MambaConfig() if request.param == "random" else odd)


def random_tokens(model: MambaLM, batch: int, length: int) -> torch.Tensor:
    return torch.randint(model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(2))


def transformers_twin(model: MambaLM):
    transformers = pytest.importorskip("transformers")
    c = model.config
    twin = transformers.MambaForCausalLM(
        transformers.MambaConfig(
            vocab_size=c.vocab_size, hidden_size=c.d_model, num_hidden_layers=c.n_layer,
            state_size=c.d_state, conv_kernel=c.d_conv, expand=c.expand,
        )
    )  # fmt: skip
    result = twin.load_state_dict(model.state_dict())  # strict: every name must match, after transformers' own hook
    assert not result.missing_keys and not result.unexpected_keys
    return twin.eval()


@pytest.mark.slow
@torch.no_grad()
def test_logits_equal_transformers(model):
    tokens = random_tokens(model, 3, 60)
    ours, theirs = model(tokens), transformers_twin(model)(tokens).logits
    assert theirs.std() > 0.05  # logits that are all alike would agree whatever the model does
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_names_are_those_of_mamba_ssm():
    """state_dict keys of mamba_ssm.models.mixer_seq_simple.MambaLMHeadModel, written out: the package needs a GPU."""
    mixer = ["A_log", "D", "conv1d.bias", "conv1d.weight", "dt_proj.bias", "dt_proj.weight",
             "in_proj.weight", "out_proj.weight", "x_proj.weight"]  # fmt: skip
    expected = {"backbone.embedding.weight", "backbone.norm_f.weight", "lm_head.weight"}
    expected |= {"backbone.layers.0.norm.weight"} | {f"backbone.layers.0.mixer.{name}" for name in mixer}
    assert set(MambaLM(MambaConfig(n_layer=1)).state_dict()) == expected


def test_vocabulary_is_padded_to_eight():
    assert [MambaConfig(condition_tokens=n).vocab_size for n in (1, 8, 9)] == [520, 520, 528]


@pytest.mark.slow
@torch.inference_mode()
def test_step_equals_forward(model):
    tokens = random_tokens(model, 2, 50)
    state, logits = model.empty_state(2), []
    for token in tokens.T:
        out, state = model.step(token, state)
        logits.append(out)
    torch.testing.assert_close(torch.stack(logits, dim=1), model(tokens), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_position_sees_the_past_alone():
    model, tokens = random_mamba(MambaConfig()), random_tokens(random_mamba(MambaConfig()), 1, 40)
    changed = tokens.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 512
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert (before[:, 20:] - after[:, 20:]).abs().amax(-1).min() > 0  # and every later one is moved by it


def plain_scan(x, delta, A, B, C):
    """The recurrence as the paper writes it."""
    h, ys = x.new_zeros(x.shape[0], x.shape[2], A.shape[1]), []
    for t in range(x.shape[1]):
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        ys.append((h * C[:, t, None]).sum(-1))
    return torch.stack(ys, dim=1)


@pytest.mark.slow
def test_scan_and_its_gradient():
    generator = torch.Generator().manual_seed(3)
    shapes = {"x": (2, 6, 3), "delta": (2, 6, 3), "A": (3, 4), "B": (2, 6, 4), "C": (2, 6, 4)}
    draw = {name: torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in shapes.items()}
    draw["delta"], draw["A"] = draw["delta"].abs(), -draw["A"].abs()
    arguments = tuple(value.requires_grad_() for value in draw.values())
    torch.testing.assert_close(SelectiveScan.apply(*arguments), plain_scan(*arguments))
    assert torch.autograd.gradcheck(SelectiveScan.apply, arguments)
