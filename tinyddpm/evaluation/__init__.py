"""Evaluation of models: a classifier reads samples, and metrics compare them with real images."""

from .classifier import Classifier, classify, features, load_classifier, save_classifier, train_classifier
from .evaluate import METRICS, SampleSpec, Score, evaluate, score
from .judge import coverage, judge, read_samples
from .judges import JUDGES, Judge, Reference, reference_for
from .metrics import frechet_digit_distance, inception_score, kernel_distance, label_accuracy
from .metrics import memorisation, nearest, precision_recall, train_on_synthetic
