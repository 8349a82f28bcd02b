"""Extensions of the core, one paper a file."""
