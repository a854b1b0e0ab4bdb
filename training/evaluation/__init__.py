"""Judge trained models on a split of a dataset: a page for people, a JSON report for programs, CSV work lists.

`training.evaluation.evaluate.evaluate_runs` does it. Importing this package imports no Keras.
"""

from training.evaluation.options import EvaluationOptions

__all__ = ["EvaluationOptions"]
