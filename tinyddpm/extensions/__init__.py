"""Extensions of the core, one subject a file; import the one you need."""
