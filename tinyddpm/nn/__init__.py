"""The parts with weights. They know images (b, c, h, w), and nothing of noise schedules. A network is a module that
is called as model(x_t, t, y=None) and returns the shape of x_t. It has `num_classes` (None: no labels; the null class
is num_classes) and `arguments`, the keyword arguments of its class that rebuild it.
"""

from typing import Any

from .attention import Attention, LinearAttention
from .conv import ConvBlock, WeightStandardizedConv2d
from .embedding import LabelEmbedding, SinusoidalEmbedding
from .resample import DepthToSpace, Downsample, SpaceToDepth, Upsample
from .resnet import ResnetBlock
from .unet import UNet

# the classes that a checkpoint may name; add yours, or "package.module:Class", to load checkpoints of it
NETWORKS: dict[str, Any] = {"UNet": UNet, "DiT": "tinyddpm.nn.dit:DiT"}
NETWORKS |= {"SelfConditioned": "tinyddpm.extensions.self_conditioning:SelfConditioned"}
NETWORKS |= {"TwoTimes": "tinyddpm.extensions.few_steps:TwoTimes"}
NETWORKS |= {"GuidedNetwork": "tinyddpm.extensions.distillation:GuidedNetwork"}
NETWORKS |= {"GreyLevels": "tinyddpm.extensions.vdm:GreyLevels"}
