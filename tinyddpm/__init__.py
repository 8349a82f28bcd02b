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
    x_0_from_flow,
    x_0_from_v,
)
from .editing.inpainting import inpaint
from .editing.inversion import invert, round_trip_error, sdedit, slerp, transfer
from .editing.strip import write, write_steps
from .extensions.gradient_guidance import classifier_guidance, energy_guidance
from .extensions.score_sde import euler_maruyama, log_likelihood, predictor_corrector, score
from .grids import resampling_grid
from .guidance import blend, classifier_free_guidance, clip_x_0, dynamic_threshold, interval
from .nn import UNet
from .oracle import dataset_oracle, gaussian_oracle
from .pipeline import DDPM, load_pretrained
from .samplers import Step, ddim, last, p_sample, p_sample_loop
from .schedules import Schedule, cosine_betas, flow_betas, linear_betas, sigmoid_betas, zero_terminal_snr
from .solvers import dpm_solver_pp, heun
