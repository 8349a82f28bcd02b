"""tinyddpm: denoising diffusion from scratch, on MNIST."""

from .diffusion import (
    diffusion_loss,
    eps_from_x_0,
    make_denoiser,
    q_posterior,
    q_sample,
    q_step,
    v_from,
    x_0_from_eps,
    x_0_from_v,
)
from .guidance import classifier_free_guidance, clip_x_0
from .nn import UNet
from .oracle import dataset_oracle, gaussian_oracle
from .pipeline import DDPM, load_pretrained
from .samplers import Step, ddim, last, p_sample, p_sample_loop
from .schedules import Schedule, cosine_betas, linear_betas, sigmoid_betas
