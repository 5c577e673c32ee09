"""One rule per ATen operator or family: how the labels of its outputs follow from those of its inputs.

A rule is `(tracer, func, args, kwargs, out) -> None`; it must label every output. To add one: write the
function in the file of its family, add its operators to `TABLE`, and add a case to `tests/graph/test_rules.py`.
Operators that PyTorch tags as pointwise need no entry, nor do in-place forms of those.
"""

from collections.abc import Callable
from typing import Any

import torch

from prunit.graph.labels import Labels
from prunit.graph.rules.elementwise import (
    flipped,
    gated,
    like_first,
    padding,
    places,
    pointwise,
    pooling,
    same_shape,
    sampled,
    unpooled,
)
from prunit.graph.rules.parts import embedding, gathered, index, part, pieces, written_to
from prunit.graph.rules.quantised import fake_quantised, observed
from prunit.graph.rules.seam import TracerLike, by_operator, tensors
from prunit.graph.rules.shapes import (
    channel_shuffle,
    concatenate,
    expand,
    filled,
    nothing,
    patches,
    pixel_shuffle,
    repeat,
    stack,
    unpatched,
    windows,
)
from prunit.graph.rules.statistics import (
    along_free_dim,
    batch_norm,
    group_norm,
    layer_norm,
    position,
    reduction,
    renormed,
    softmax,
    weight_norm,
)
from prunit.graph.rules.views import permute, reshape, restride, squeeze, unsqueeze
from prunit.graph.rules.weights import attention, convolution, matmul, vector

Rule = Callable[[Any, Any, tuple[Any, ...], dict[str, Any], Any], None]


def unknown_operator(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """No rule: everything that goes in stays whole, and the user is told."""
    for leaf in tensors((args, kwargs)):
        t.pin_tensor(leaf, f"operator {func} has no rule")
    for leaf in tensors(out):
        t.set(leaf, Labels())


# The operators by name, so that one that this PyTorch does not have is simply skipped.
TABLE: dict[Rule, str] = {
    pointwise: (
        "copy_ masked_fill where lerp addcmul addcdiv hardswish rrelu_with_noise _prelu_kernel bernoulli native_dropout"
    ),
    like_first: "log_sigmoid_forward alias detach lift_fresh lift_fresh_copy clone _to_copy to contiguous fill_ zero_",
    same_shape: "zeros_like ones_like empty_like full_like rand_like randn_like",
    pooling: (
        "max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool1d avg_pool2d avg_pool1d avg_pool3d"
        " _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool2d adaptive_avg_pool1d adaptive_max_pool2d"
        " adaptive_max_pool3d upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d"
        " _upsample_bilinear2d_aa upsample_bicubic2d upsample_linear1d upsample_trilinear3d upsample_nearest3d"
        " reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d"
    ),
    padding: "constant_pad_nd",
    gated: "glu",
    sampled: "grid_sampler_2d grid_sampler_3d cudnn_grid_sampler _grid_sampler_2d_cpu_fallback",
    places: "affine_grid_generator",
    unpooled: "max_unpool2d max_unpool3d",
    convolution: "convolution",
    matmul: "mm bmm addmm baddbmm",
    vector: "mv dot vdot",
    attention: (
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention"
        " _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"
    ),
    batch_norm: (
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit"
        " _native_batch_norm_legit_functional _native_batch_norm_legit_no_training _batch_norm_with_update"
        " _batch_norm_no_update"
    ),
    layer_norm: "native_layer_norm _fused_rms_norm",
    group_norm: "native_group_norm",
    weight_norm: "_weight_norm_interface",
    renormed: "renorm renorm_",
    fake_quantised: (
        "fake_quantize_per_tensor_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams"
        " fake_quantize_per_channel_affine_cachemask"
    ),
    observed: "_fused_moving_avg_obs_fq_helper _fused_moving_avg_obs_fq_helper_functional",
    reduction: "sum mean amax amin aminmax norm linalg_vector_norm var var_mean std std_mean prod all any logsumexp",
    position: "argmax argmin max min median nanmedian mode kthvalue",
    softmax: "_softmax _log_softmax softmax log_softmax _safe_softmax",
    along_free_dim: "cumsum cumprod cummax cummin roll sort topk index_fill index_fill_",
    flipped: "flip",
    reshape: "view _unsafe_view reshape _reshape_alias flatten unflatten",
    restride: "as_strided as_strided_",
    permute: "permute transpose transpose_ t t_",
    unsqueeze: "unsqueeze",
    squeeze: "squeeze",
    expand: "expand",
    repeat: "repeat",
    concatenate: "cat",
    stack: "stack",
    pieces: "slice split split_with_sizes narrow unsafe_split",
    part: "select unbind index_select",
    index: "index _unsafe_index",
    gathered: "gather",
    written_to: "index_put index_put_ _index_put_impl_ _unsafe_index_put",
    embedding: "embedding",
    pixel_shuffle: "pixel_shuffle pixel_unshuffle",
    channel_shuffle: "channel_shuffle native_channel_shuffle",
    patches: "im2col",
    unpatched: "col2im",
    windows: "unfold",
    filled: "zeros ones full empty new_zeros new_ones new_empty new_full",
    nothing: "arange linspace rand randn randint randperm scalar_tensor eye",
}

_BY_PACKET: dict[Any, Rule] = {
    getattr(torch.ops.aten, name): rule
    for rule, names in TABLE.items()
    for name in names.split()
    if hasattr(torch.ops.aten, name)
}


@by_operator
def rule_for(func: Any) -> Rule:
    """The rule of an operator; one that pins all it touches if there is none."""
    packet = func.overloadpacket
    if packet in _BY_PACKET:
        return _BY_PACKET[packet]
    if torch.Tag.pointwise in func.tags or _is_in_place_pointwise(packet.__name__):
        return pointwise
    return unknown_operator


def _is_in_place_pointwise(name: str) -> bool:
    """Whether `name_` is the in-place form of an element-wise `name`: not all of those carry PyTorch's tag."""
    plain = getattr(torch.ops.aten, name.removesuffix("_"), None)
    if plain is None or not name.endswith("_"):
        return False
    return _BY_PACKET.get(plain) is pointwise or any(
        torch.Tag.pointwise in getattr(plain, overload).tags for overload in plain.overloads()
    )
