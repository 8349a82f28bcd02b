"""What the other wings share: jobs and plots."""
