"""Training that can be stopped and resumed, on several processes and in mixed precision."""
