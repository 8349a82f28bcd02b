"""What samples are worth: the digit classifier, metrics, and the report."""
