"""tinyddpm: denoising diffusion from scratch, on MNIST."""

import importlib

from .data import ImageDataset, mnist
from .diffusion import PREDICTIONS, diffusion_loss, make_denoiser, q_posterior, q_sample, q_step
from .diffusion import eps_from_x_0, v_from, x_0_from_eps, x_0_from_flow, x_0_from_v
from .guidance import classifier_free_guidance, clip_x_0, interval
from .nn import NETWORKS, UNet
from .oracle import dataset_oracle, gaussian_oracle
from .pipeline import DDPM, load_pretrained
from .samplers import Step, ddim, dpm_solver_pp, heun, last, p_sample, p_sample_loop, trajectory
from .schedules import Schedule, cosine_betas, flow_betas, linear_betas
from .training import EMA, DenoisingLoss, drop_labels, train_steps, warmup_cosine

WINGS = {  # more public names, imported when they are first used
    "extensions.betas": "sigmoid_betas zero_terminal_snr",
    "extensions.gradient_guidance": "blend classifier_guidance dynamic_threshold energy_guidance",
    "extensions.learned_variance": "LearnedVariance LearnedVarianceLoss",
    "extensions.likelihood": "bits_per_dim",
    "extensions.self_conditioning": "SelfConditioned SelfConditionedLoss",
    "extensions.score_sde": "euler_maruyama log_likelihood predictor_corrector score",
    "editing.inpainting": "complete hide_half inpaint resampling_grid",
    "editing.handwriting": "handwriting morph",
    "editing.inversion": "invert round_trip_error sdedit slerp transfer",
    "editing.strip": "write write_steps",
}
HOME = {name: wing for wing, names in WINGS.items() for name in names.split()}
NETWORKS["SelfConditioned"] = lambda **arguments: __getattr__("SelfConditioned")(**arguments)


def __getattr__(name: str):
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOME})
