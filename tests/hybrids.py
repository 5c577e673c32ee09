"""Small members of families with attention, their forward passes as those are mostly written.

Every network takes images x_BCHW of shape (2, 3, 16, 16). Heads are three or more, and as many as nothing else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.architectures import Family
from tests.nets import Head, conv_bn


class Attention(nn.Module):
    """timm's: x_BNC, one map for queries, keys and values."""

    def __init__(self, c: int, heads: int, width: int, *, fused: bool = True) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused_attn = heads, width, fused
        self.scale = width**-0.5
        self.qkv, self.proj = nn.Linear(c, 3 * heads * width), nn.Linear(heads * width, c)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(B, N, -1))


class Mlp(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(c, n), nn.GELU(), nn.Linear(n, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Layer(nn.Module):
    """A transformer's layer, norms first."""

    def __init__(self, c: int, heads: int, width: int, *, fused: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c, eps=1e-2), nn.LayerNorm(c, eps=1e-2)
        self.attn, self.mlp = Attention(c, heads, width, fused=fused), Mlp(c, 2 * c + 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches by a convolution, a class token, learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 10, 4, stride=4)
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, 10)), nn.Parameter(torch.zeros(1, 17, 10))
        self.blocks = nn.Sequential(Layer(10, 4, 6), Layer(10, 3, 8, fused=False))
        self.norm, self.head = nn.LayerNorm(10, eps=1e-2), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class MobileVit(nn.Module):
    """Convolutions, then attention among the pixels that lie alike in their patches, as timm unfolds them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv_kxk, self.conv_1x1 = conv_bn(3, 7, stride=2), conv_bn(7, 7), nn.Conv2d(7, 9, 1, bias=False)
        self.transformer, self.norm = nn.Sequential(Layer(9, 5, 3)), nn.LayerNorm(9, eps=1e-2)
        self.conv_proj, self.conv_fusion = conv_bn(9, 7, 1), conv_bn(14, 7)
        self.patch_size, self.patch_area = (2, 2), 4
        self.head = Head(7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shortcut = x
        x = self.conv_1x1(self.conv_kxk(x))
        patch_h, patch_w = self.patch_size
        B, C, H, W = x.shape
        num_patch_h, num_patch_w = H // patch_h, W // patch_w
        num_patches = num_patch_h * num_patch_w
        x = x.reshape(B * C * num_patch_h, patch_h, num_patch_w, patch_w).transpose(1, 2)
        x = x.reshape(B, C, num_patches, self.patch_area).transpose(1, 3).reshape(B * self.patch_area, num_patches, -1)
        x = self.norm(self.transformer(x))
        x = x.contiguous().view(B, self.patch_area, num_patches, -1)
        x = x.transpose(1, 3).reshape(B * C * num_patch_h, num_patch_w, patch_h, patch_w)
        x = x.transpose(1, 2).reshape(B, C, num_patch_h * patch_h, num_patch_w * patch_w)
        x = self.conv_fusion(torch.cat((shortcut, self.conv_proj(x)), dim=1))
        return self.head(x)


class ContextAttention(nn.Module):
    """MobileViTv2's: one context vector for all pixels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.embed_dim = c
        self.qkv_proj, self.out_proj = nn.Conv2d(c, 1 + 2 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv_proj(x)
        query, key, value = torch.split(qkv, [1, self.embed_dim, self.embed_dim], dim=1)
        context = (key * F.softmax(query, dim=-1)).sum(dim=-1, keepdim=True)
        return self.out_proj(F.relu(value) * context.expand_as(value))


class ContextLayer(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm, self.attn = nn.GroupNorm(1, c, eps=1e-2), ContextAttention(c)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm(x))


class Unfolded(nn.Module):
    """MobileViTv2: patches by unfold and fold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = conv_bn(3, 7, stride=2), nn.Conv2d(7, 8, 1)
        self.transformer, self.head = nn.Sequential(ContextLayer(8)), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(self.stem(x))
        B, C, H, W = x.shape
        x = F.unfold(x, kernel_size=(2, 2), stride=(2, 2)).reshape(B, C, 4, -1)
        x = self.transformer(x).reshape(B, C * 4, -1)
        return self.head(F.fold(x, output_size=(H, W), kernel_size=(2, 2), stride=(2, 2)))


class RelativeBias(nn.Module):
    """A learned bias for each head and each difference of positions."""

    relative_position_index: Tensor

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        self.window_area = side * side
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :]) + side - 1
        self.register_buffer("relative_position_index", apart[0] * (2 * side - 1) + apart[1], persistent=False)

    def forward(self) -> Tensor:
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        return bias.view(self.window_area, self.window_area, -1).permute(2, 0, 1).unsqueeze(0).contiguous()


class PlaneAttention(nn.Module):
    """CoAtNet's, as timm writes it: on x_BCHW, with a bias for each head."""

    def __init__(self, c: int, heads: int, width: int, side: int) -> None:
        super().__init__()
        self.num_heads, self.dim_head = heads, width
        self.scale = width**-0.5
        self.qkv, self.rel_pos = nn.Conv2d(c, 3 * heads * width, 1), RelativeBias(side, heads)
        self.proj = nn.Conv2d(heads * width, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        q, k, v = self.qkv(x).view(B, self.num_heads, self.dim_head * 3, -1).chunk(3, dim=2)
        attn = (q.transpose(-2, -1) * self.scale) @ k + self.rel_pos()
        x = (v @ attn.softmax(dim=-1).transpose(-2, -1)).view(B, -1, H, W)
        return self.proj(x)


class CoAtNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool, self.norm = conv_bn(3, 10), nn.MaxPool2d(4), nn.BatchNorm2d(10)
        self.attn, self.head = PlaneAttention(10, 6, 8, 4), Head(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return self.head(x + self.attn(self.norm(x)))


class LinearAttention(nn.Module):
    """EfficientViT's LiteMLA, as timm writes it: ReLU in place of softmax, keys times values first."""

    def __init__(self, c: int, heads: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        total = heads * dim
        self.qkv = nn.Conv2d(c, 3 * total, 1, bias=False)
        self.aggreg = nn.Sequential(
            nn.Conv2d(3 * total, 3 * total, 3, padding=1, groups=3 * total, bias=False),
            nn.Conv2d(3 * total, 3 * total, 1, groups=3 * heads, bias=False),
        )
        self.proj = conv_bn(2 * total, c, 1, act=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        qkv = self.qkv(x)
        multi_scale_qkv = torch.cat([qkv, self.aggreg(qkv)], dim=1)
        multi_scale_qkv = multi_scale_qkv.reshape(B, -1, 3 * self.dim, H * W).transpose(-1, -2)
        q, k, v = multi_scale_qkv.chunk(3, dim=-1)
        q, k, v = F.relu(q), F.relu(k), F.pad(v, (0, 1), mode="constant", value=1.0)
        out = q @ (k.transpose(-1, -2) @ v)
        out = out[..., :-1] / (out[..., -1:] + 1e-2)
        return self.proj(out.transpose(-1, -2).reshape(B, -1, H, W))


class EfficientVit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.context, self.head = conv_bn(3, 8, stride=2), LinearAttention(8, 3, 5), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.context(x))


class Window(nn.Module):
    """Swin's block: attention in windows, shifted by half of one."""

    def __init__(self, c: int, heads: int, width: int, shift: int) -> None:
        super().__init__()
        self.window_size, self.shift_size = 4, shift
        self.norm, self.attn = nn.LayerNorm(c, eps=1e-2), Attention(c, heads, width, fused=False)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        y = torch.roll(self.norm(x), shifts=(-self.shift_size, -self.shift_size), dims=(1, 2))
        s = self.window_size
        y = y.view(B, H // s, s, W // s, s, C).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, s * s, C)
        y = self.attn(y).view(-1, s, s, C)
        y = y.view(B, H // s, W // s, s, s, -1).permute(0, 1, 3, 2, 4, 5).contiguous().view(B, H, W, -1)
        return x + torch.roll(y, shifts=(self.shift_size, self.shift_size), dims=(1, 2))


class Merging(nn.Module):
    """Four pixels side by side become one."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.dim = c
        self.norm, self.reduction = nn.LayerNorm(4 * c, eps=1e-2), nn.Linear(4 * c, n, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        x = x.reshape(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 9, 2, stride=2)
        self.stages = nn.Sequential(Window(9, 3, 5, 0), Window(9, 3, 5, 2), Merging(9, 11), Window(11, 5, 3, 0))
        self.norm, self.head = nn.LayerNorm(11, eps=1e-2), nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.embed(x).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean((1, 2)))


class CrossCovariance(nn.Module):
    """XCiT and EdgeNeXt: attention among the channels of each head, of unit length, with a learned temperature."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        attn = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * self.temperature
        x = (attn.softmax(dim=-1) @ v).permute(0, 3, 1, 2).reshape(B, N, C)
        return self.proj(x)


class EdgeNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.xca = conv_bn(3, 12, stride=2), nn.LayerNorm(12, eps=1e-2), CrossCovariance(12, 3)
        self.norm2, self.mlp, self.head = nn.LayerNorm(12, eps=1e-2), Mlp(12, 25), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        B, C, H, W = x.shape
        y = x.reshape(B, C, H * W).permute(0, 2, 1)
        y = y + self.xca(self.norm(y))
        y = y + self.mlp(self.norm2(y))
        return self.head(x + y.permute(0, 2, 1).reshape(B, C, H, W))


HYBRID: dict[str, Family] = {
    "vision transformer": VisionTransformer,
    "mobilevit": MobileVit,
    "mobilevit v2": Unfolded,
    "coatnet": CoAtNet,
    "efficientvit": EfficientVit,
    "swin": Swin,
    "edgenext": EdgeNext,
}
