"""tinyddpm: denoising diffusion from scratch, on MNIST."""

import importlib

from .diffusion import PREDICTIONS as PREDICTIONS
from .diffusion import (
    diffusion_loss,
    eps_from_x_0,
    flow_from,
    make_denoiser,
    q_posterior,
    q_sample,
    q_step,
    v_from,
    x_0_from_eps,
    x_0_from_flow,
    x_0_from_v,
)
from .guidance import classifier_free_guidance, clip_x_0, interval
from .nn import UNet
from .oracle import dataset_oracle, gaussian_oracle
from .pipeline import DDPM, load_pretrained
from .samplers import Step, ddim, dpm_solver_pp, heun, last, p_sample, p_sample_loop, trajectory
from .schedules import Schedule, cosine_betas, flow_betas, linear_betas, sigmoid_betas, zero_terminal_snr
from .training import EMA, DenoisingLoss, drop_labels, train_steps, warmup_cosine

WINGS = {  # public names that are imported when they are first used
    "blend": "extensions.gradient_guidance",
    "classifier_guidance": "extensions.gradient_guidance",
    "dynamic_threshold": "extensions.gradient_guidance",
    "energy_guidance": "extensions.gradient_guidance",
    "euler_maruyama": "extensions.score_sde",
    "log_likelihood": "extensions.score_sde",
    "predictor_corrector": "extensions.score_sde",
    "score": "extensions.score_sde",
    "inpaint": "editing.inpainting",
    "resampling_grid": "editing.inpainting",
    "invert": "editing.inversion",
    "round_trip_error": "editing.inversion",
    "sdedit": "editing.inversion",
    "slerp": "editing.inversion",
    "transfer": "editing.inversion",
    "write": "editing.strip",
    "write_steps": "editing.strip",
}


def __getattr__(name: str):
    if name not in WINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{WINGS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *WINGS})
