"""Ground floor: the parts with weights. They know (b, c, h, w) and never beta."""

from .attention import Attention, LinearAttention
from .conv import ConvBlock, WeightStandardizedConv2d
from .embedding import LabelEmbedding, SinusoidalEmbedding
from .resample import DepthToSpace, Downsample, SpaceToDepth, Upsample
from .resnet import ResnetBlock
from .unet import UNet

__all__ = [
    "Attention",
    "ConvBlock",
    "DepthToSpace",
    "Downsample",
    "LabelEmbedding",
    "LinearAttention",
    "ResnetBlock",
    "SinusoidalEmbedding",
    "SpaceToDepth",
    "UNet",
    "Upsample",
    "WeightStandardizedConv2d",
]
