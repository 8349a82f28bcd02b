"""Evaluation of models of digits: a classifier reads samples, and metrics compare them with real digits."""

from .classifier import DigitClassifier, classify, features, load_classifier, save_classifier, train_classifier
from .evaluate import METRICS, ReferenceDigits, SampleSpec, Score, evaluate, score
from .metrics import frechet_digit_distance, inception_score, kernel_distance, label_accuracy
from .metrics import memorisation, nearest, precision_recall, train_on_synthetic
