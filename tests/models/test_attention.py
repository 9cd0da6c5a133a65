from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffaudit.attention import AttentionLayer
from diffaudit.errors import InvalidSetting
from diffaudit.models.attention import attention_layers, in_window, recorded_attention

TOKENS = 5


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 2,
        "out_channels": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "cross_attention_dim": 6,
    }
    unet: UNet2DConditionModel = UNet2DConditionModel(**(config | changes)).eval()
    return unet


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(2, 2, 8, 8, generator=generator),
        "timestep": torch.tensor([300, 700]),
        "encoder_hidden_states": torch.randn(2, TOKENS, 6, generator=generator),
    }


def output(unet: Any, **changes: Any) -> Tensor:
    result: Tensor = unet(**(inputs() | changes), return_dict=False)[0]
    return result


def test_layers_by_place_and_kind() -> None:
    layers = attention_layers(tiny_unet())
    assert [(layer.place, layer.kind) for layer in layers] == [
        (place, kind) for place in ("down", "up", "up", "mid") for kind in ("self", "cross")
    ]
    assert layers[1].name == "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


def test_levels_are_the_halvings_of_the_side() -> None:
    """The places that a layer's maps have say on which grid it looks: side 8, halved once, and once again."""
    kinds = ["CrossAttn{}Block2D"] * 3
    unet = tiny_unet(
        down_block_types=[kind.format("Down") for kind in kinds],
        up_block_types=[kind.format("Up") for kind in kinds],
        block_out_channels=(8, 16, 16),
    )
    layers = attention_layers(unet)
    with recorded_attention(unet, layers) as maps:
        output(unet)
    assert {layer.level for layer in layers} == {0, 1, 2}
    assert all(maps[layer].shape[2] == (8 // 2**layer.level) ** 2 for layer in layers)


def test_kinds_are_told_by_structure_and_not_by_name() -> None:
    assert {layer.kind for layer in attention_layers(tiny_unet(only_cross_attention=True)) if layer.place == "up"} == {
        "cross"
    }


@pytest.mark.parametrize("variant", ["plain", "upcast", "adapters", "fused", "mask"])
def test_output_is_that_of_the_layer_unrecorded_and_rows_sum_to_one(variant: str) -> None:
    unet = tiny_unet(upcast_attention=variant == "upcast")
    changes = {}
    if variant == "adapters":
        unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False))
    if variant == "fused":
        unet.fuse_qkv_projections()
    if variant == "mask":
        changes["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    expected = output(unet, **changes)
    with recorded_attention(unet, attention_layers(unet)) as maps:
        found = output(unet, **changes)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for layer, probabilities in maps.items():
        places = 16 if layer.place == "mid" else 64
        assert probabilities.shape == (2, 2, places, TOKENS if layer.kind == "cross" else places)
        torch.testing.assert_close(probabilities.sum(3), torch.ones(2, 2, places))
        if variant == "mask" and layer.kind == "cross":
            assert probabilities[0, ..., 3:].max() < 1e-6 < probabilities[1, ..., 3:].min()


def test_maps_by_hand() -> None:
    unet = tiny_unet()
    layer = next(layer for layer in attention_layers(unet) if layer.kind == "cross")
    module: Any = unet.get_submodule(layer.name)
    seen: list[Tensor] = []
    handle = module.to_q.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with recorded_attention(unet, [layer]) as maps:
        output(unet)
    handle.remove()
    query, key = module.to_q(seen[0])[1, 3, 4:], module.to_k(inputs()["encoder_hidden_states"])[1, :, 4:]
    # Image 1, head 1 of two heads of 4 channels, place 3.
    torch.testing.assert_close(maps[layer][1, 1, 3], ((key @ query) / 4**0.5).softmax(0))


def test_other_layers_keep_their_processors_and_all_are_put_back() -> None:
    unet = tiny_unet()
    before = unet.attn_processors
    layer = attention_layers(unet)[1]
    with recorded_attention(unet, [layer]) as maps:
        changed = {name for name, processor in unet.attn_processors.items() if processor is not before[name]}
        output(unet)
    assert changed == {f"{layer.name}.processor"}
    assert set(maps) == {layer}
    with pytest.raises(KeyError, match="inside"), recorded_attention(unet, [layer]):
        raise KeyError("inside")
    after = unet.attn_processors
    assert all(after[name] is processor for name, processor in before.items())


def test_gradients_flow_through_maps() -> None:
    unet = tiny_unet()
    layer = next(layer for layer in attention_layers(unet) if layer.place == "up" and layer.kind == "cross")
    sample = inputs()["sample"].requires_grad_()
    with recorded_attention(unet, [layer]) as maps:
        output(unet, sample=sample)
    (gradient,) = torch.autograd.grad(maps[layer][0, :, :, 1].sum(), sample)
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


def test_a_step_recomputed_as_a_whole_has_the_same_gradient() -> None:
    unet = tiny_unet()
    layer = attention_layers(unet)[-1]

    def step(sample: Tensor) -> Tensor:
        with recorded_attention(unet, [layer]) as maps:
            output(unet, sample=sample)
        return maps[layer]

    gradients = []
    for run in (step, lambda sample: checkpoint(step, sample, use_reentrant=False)):
        sample = inputs()["sample"].requires_grad_()
        gradients.append(torch.autograd.grad(run(sample)[..., 0].sum(), sample)[0])
    assert torch.equal(*gradients)


def test_a_second_call_is_refused_and_leaves_all_as_it_was() -> None:
    unet = tiny_unet()
    before = unet.attn_processors

    def twice() -> None:
        with recorded_attention(unet, attention_layers(unet)):
            output(unet)
            output(unet)

    with pytest.raises(InvalidSetting, match="`unet` should be called once"):
        twice()
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())


def test_refusals_before_any_work() -> None:
    unet = tiny_unet()
    stranger = AttentionLayer("up_blocks.9.attn2", "up", "cross")
    with (
        pytest.raises(InvalidSetting, match="`layers` should be layers of this UNet"),
        recorded_attention(unet, [stranger]),
    ):
        pass
    layer = attention_layers(unet)[0]
    module: Any = unet.get_submodule(layer.name)
    plain = module.get_processor()
    module.set_processor(nn.Linear(2, 2))
    with pytest.raises(InvalidSetting, match="without weights of their own"), recorded_attention(unet, [layer]):
        pass
    module.set_processor(plain)
    unet.enable_gradient_checkpointing()
    with pytest.raises(InvalidSetting, match="not recompute its blocks"), recorded_attention(unet, [layer]):
        pass
    with recorded_attention(unet, []) as nothing:  # where nothing is recorded, blocks may be recomputed
        output(unet).sum().backward()
    assert nothing == {}


@pytest.mark.parametrize(
    ("timestep", "total", "window", "expected"),
    [(0, 11, (0.5, 0.9), False), (1, 11, (0.5, 0.9), True), (5, 11, (0.5, 0.9), True), (6, 11, (0.5, 0.9), False)],
)
def test_window_is_of_progress(timestep: int, total: int, window: tuple[float, float], expected: bool) -> None:
    assert in_window(timestep, total, window) is expected


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 1), "total"), ((10, 10), "timestep"), ((0, 10, (0.9, 0.5)), "window")]
)
def test_windows_that_are_none(arguments: Any, name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"`{name}` should"):
        in_window(*arguments)
