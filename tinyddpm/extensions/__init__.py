"""Extensions of the core, one subject a file; import the one you need.

gradient_guidance  energy_guidance, classifier_guidance, blend, dynamic_threshold
score_sde          score, euler_maruyama, predictor_corrector, log_likelihood
likelihood         bits_per_dim, denoising_error
learned_variance   LearnedVarianceLoss, LearnedVariance, hybrid_loss
self_conditioning  SelfConditioned, SelfConditionedLoss
"""
