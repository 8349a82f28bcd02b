from . import data, datasets, diffusion, editing, evaluation, extensions, files, guidance, nn, oracle, pipeline
from . import samplers, schedules, trainer, training, viz
from .cli.terminal import show as show
from .data import ImageDataset as ImageDataset, mnist as mnist
from .diffusion import PREDICTIONS as PREDICTIONS, diffusion_loss as diffusion_loss, eps_from_x_0 as eps_from_x_0
from .diffusion import make_denoiser as make_denoiser, q_posterior as q_posterior, q_sample as q_sample
from .diffusion import q_step as q_step, v_from as v_from, x_0_from_eps as x_0_from_eps, x_0_from_flow as x_0_from_flow
from .diffusion import x_0_from_v as x_0_from_v
from .editing.handwriting import handwriting as handwriting, morph as morph
from .editing.inpainting import complete as complete, hide_half as hide_half, inpaint as inpaint
from .editing.inpainting import resampling_grid as resampling_grid
from .editing.inversion import invert as invert, round_trip_error as round_trip_error, sdedit as sdedit, slerp as slerp
from .editing.inversion import transfer as transfer
from .editing.strip import write as write, write_steps as write_steps
from .evaluation.evaluate import evaluate as evaluate
from .extensions.betas import sigmoid_betas as sigmoid_betas, zero_terminal_snr as zero_terminal_snr
from .extensions.classify import classify as classify
from .extensions.distillation import DistributionMatchingLoss as DistributionMatchingLoss
from .extensions.distillation import GuidedNetwork as GuidedNetwork
from .extensions.few_steps import ConsistencyLoss as ConsistencyLoss, MeanFlowLoss as MeanFlowLoss
from .extensions.few_steps import ReflowLoss as ReflowLoss, TwoTimes as TwoTimes
from .extensions.few_steps import consistency_sampling as consistency_sampling, mean_flow as mean_flow
from .extensions.few_steps import reflow_pairs as reflow_pairs
from .extensions.gradient_guidance import blend as blend, classifier_guidance as classifier_guidance
from .extensions.gradient_guidance import dynamic_threshold as dynamic_threshold, energy_guidance as energy_guidance
from .extensions.learned_variance import LearnedVariance as LearnedVariance, LearnedVarianceLoss as LearnedVarianceLoss
from .extensions.likelihood import bits_per_dim as bits_per_dim
from .extensions.score_sde import euler_maruyama as euler_maruyama, log_likelihood as log_likelihood
from .extensions.score_sde import predictor_corrector as predictor_corrector, score as score
from .extensions.self_conditioning import SelfConditioned as SelfConditioned, SelfConditionedLoss as SelfConditionedLoss
from .guidance import classifier_free_guidance as classifier_free_guidance, clip_x_0 as clip_x_0, interval as interval
from .nn import NETWORKS as NETWORKS, UNet as UNet
from .nn.dit import DiT as DiT
from .oracle import dataset_oracle as dataset_oracle, gaussian_oracle as gaussian_oracle, local_oracle as local_oracle
from .pipeline import DDPM as DDPM, load_pretrained as load_pretrained
from .samplers import Step as Step, ddim as ddim, dpm_solver_pp as dpm_solver_pp, heun as heun, last as last
from .samplers import p_sample as p_sample, p_sample_loop as p_sample_loop, trajectory as trajectory
from .schedules import Schedule as Schedule, cosine_betas as cosine_betas, linear_betas as linear_betas
from .schedules import flow_betas as flow_betas
from .trainer import train as train
from .trainer.recipes import get_recipe as get_recipe
from .training import EMA as EMA, DenoisingLoss as DenoisingLoss, drop_labels as drop_labels, train_steps as train_steps
from .training import warmup_cosine as warmup_cosine
from .viz import film_strip as film_strip, image_grid as image_grid, save_gif as save_gif, save_picture as save_picture

__version__: str
